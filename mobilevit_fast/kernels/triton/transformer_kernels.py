"""The three kernels of a transformer layer, over tokens (pixels, width) that stay in the order of the image.

Numbers read and written for a token of width D, a layer: query, key and value from the normalised token D + 3·D;
attention 3·D + D; its projection with the residual 2·D + D (`conv2d_kernel`); the MLP with its norm and residual D + D.
That is 13·D where separate layers move 30·D. Attention and projection in one would save 2·D more, but sums for all
heads together take so many registers that one program fills a processor. In the MLP, a width that is no power of two is
held in two pieces, such as 128 + 16 for 144, since Triton's blocks are powers of two.
"""

import triton
import triton.language as tl

from mobilevit_fast.kernels.triton.device import (
    activate,
    aligned,
    epilogue,
    load_tile,
    load_weight,
    per_channel,
    product,
    rounded,
    token_pixel,
)


@triton.jit
def _statistics(x_ptr, row, row_mask, width, eps, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr):
    """Mean and 1 / standard deviation of rows, (BLOCK_M,) each; the second pass finds its numbers in the cache."""
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(0, width, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)  # (BLOCK_K,)
        x = load_tile(x_ptr, row, width, row_mask, k, width).to(tl.float32)  # (BLOCK_M, BLOCK_K)
        total += tl.sum(x, axis=1)
    mean = total / width  # (BLOCK_M,)
    squares = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(0, width, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)  # (BLOCK_K,)
        x = load_tile(x_ptr, row, width, row_mask, k, width).to(tl.float32)  # (BLOCK_M, BLOCK_K)
        centred = tl.where((k < width)[None, :], x - mean[:, None], 0.0)  # (BLOCK_M, BLOCK_K)
        squares += tl.sum(centred * centred, axis=1)
    return mean, 1.0 / tl.sqrt_rn(squares / width + eps)


@triton.jit
def _normalised(x_ptr, row, row_mask, k, width, mean, inverse, norm_weight_ptr, norm_bias_ptr):
    """Columns ``k`` of the layer norm of rows, in the type of ``x_ptr``."""
    x = load_tile(x_ptr, row, width, row_mask, k, width).to(tl.float32)  # (BLOCK_M, BLOCK_K)
    x = (x - mean[:, None]) * inverse[:, None]  # (BLOCK_M, BLOCK_K)
    x = x * per_channel(norm_weight_ptr, k, width)[None, :] + per_channel(norm_bias_ptr, k, width)[None, :]
    return rounded(x, x_ptr.dtype.element_ty)


@triton.jit
def _add_to_tokens(sums, bias_ptr, tokens_ptr, row, row_mask, columns, width):
    """tokens += sums + bias, for some of the columns."""
    mask = row_mask[:, None] & (columns < width)[None, :]
    at = tokens_ptr + row[:, None].to(tl.int64) * width + columns[None, :]
    y = sums + per_channel(bias_ptr, columns, width)[None, :] + tl.load(at, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, rounded(y, tokens_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "width", "outputs", "eps"])
def norm_linear_kernel(
    x_ptr,  # (rows, D)
    norm_weight_ptr,  # (D,)
    norm_bias_ptr,
    weight_ptr,  # (O, D)
    scale_ptr,  # (O,) or None
    bias_ptr,
    y_ptr,  # (rows, O)
    rows,
    width,
    outputs,
    eps,
    ALIGN: tl.constexpr,
    OUT_ALIGN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """y = activation(scale·(layer norm(x) · weightᵀ) + bias): query, key and value, and the convolution out."""
    width = aligned(width, ALIGN)
    outputs = aligned(outputs, OUT_ALIGN)
    column_blocks = tl.cdiv(outputs, BLOCK_N)
    first = (tl.program_id(0) // column_blocks).to(rows.dtype) * BLOCK_M
    row = first + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
    row_mask = tl.arange(0, BLOCK_M) < rows - first  # (BLOCK_M,), where the sum itself may overflow
    columns = tl.program_id(0) % column_blocks * BLOCK_N + tl.arange(0, BLOCK_N)  # (BLOCK_N,)
    mean, inverse = _statistics(x_ptr, row, row_mask, width, eps, BLOCK_K, BLOCK_M)
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, width, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)  # (BLOCK_K,)
        x = _normalised(x_ptr, row, row_mask, k, width, mean, inverse, norm_weight_ptr, norm_bias_ptr)
        weight = load_weight(weight_ptr, k, width, columns, outputs, width)  # (BLOCK_K, BLOCK_N)
        sums = product(x, weight, sums, INPUT_PRECISION)  # (BLOCK_M, BLOCK_N)
    y = epilogue(sums, scale_ptr, bias_ptr, columns, outputs, ACTIVATION)  # (BLOCK_M, BLOCK_N)
    mask = row_mask[:, None] & (columns < outputs)[None, :]
    tl.store(
        y_ptr + row[:, None].to(tl.int64) * outputs + columns[None, :], rounded(y, y_ptr.dtype.element_ty), mask=mask
    )


@triton.jit(do_not_specialize=["tokens", "image_tokens", "token_count", "columns", "height", "width", "heads", "scale"])
def attention_kernel(
    qkv_ptr,  # (N·H·W, 3·D): query, key, value, each head after head
    context_ptr,  # (N·H·W, D)
    tokens,  # N·H·W
    image_tokens,  # H·W
    token_count,  # of a sequence
    columns,  # patches in a row of the image
    height,
    width,
    heads,
    scale,  # of the scores, times log2(e)
    HEAD_DIM: tl.constexpr,
    PATCH_H: tl.constexpr,
    PATCH_W: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """softmax(scale · query · keyᵀ) · value of one head, in blocks with a running softmax (arXiv 2205.14135).

    A program takes BLOCK_M queries of an image, counted sequence after sequence. Keys are those of all sequences that
    the queries are of, masked to the query's own: of short sequences a program takes several, and long ones are cut at
    any point. What is not finite may spread to other sequences of its image, as the next convolution would spread it,
    and never to other images.
    """
    channels = heads * HEAD_DIM
    head = tl.program_id(0) % heads
    image_blocks = tl.cdiv(image_tokens, BLOCK_M)
    image = tl.program_id(0) // heads // image_blocks
    image_begin = image.to(tokens.dtype) * image_tokens
    image_end = image_begin + image_tokens
    first = image_begin + tl.program_id(0) // heads % image_blocks * BLOCK_M
    query = first + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
    query_mask = tl.arange(0, BLOCK_M) < image_end - first  # (BLOCK_M,), where the sum itself may overflow
    pixel = token_pixel(query, token_count, columns, height, width, PATCH_H, PATCH_W)  # (BLOCK_M,)
    sequence = query // token_count  # (BLOCK_M,)
    keys_begin = first // token_count * token_count
    keys_end = (first + tl.minimum(BLOCK_M, image_end - first) - 1) // token_count * token_count + token_count
    dims = tl.arange(0, BLOCK_D)  # (BLOCK_D,)
    head_ptr = qkv_ptr + head * HEAD_DIM

    q = load_tile(head_ptr, pixel, 3 * channels, query_mask, dims, HEAD_DIM)  # (BLOCK_M, BLOCK_D)
    largest = tl.full((BLOCK_M,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    context = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for start in range(keys_begin, keys_end, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)  # (BLOCK_N,)
        key_mask = tl.arange(0, BLOCK_N) < keys_end - start  # (BLOCK_N,)
        at = token_pixel(key, token_count, columns, height, width, PATCH_H, PATCH_W)  # (BLOCK_N,)
        k = load_tile(head_ptr + channels, at, 3 * channels, key_mask, dims, HEAD_DIM)  # (BLOCK_N, BLOCK_D)
        v = load_tile(head_ptr + 2 * channels, at, 3 * channels, key_mask, dims, HEAD_DIM)  # (BLOCK_N, BLOCK_D)
        scores = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        scores = product(q, tl.trans(k), scores, INPUT_PRECISION)  # (BLOCK_M, BLOCK_N)
        same = (sequence[:, None] == (key // token_count)[None, :]) & key_mask[None, :]
        scores = tl.where(same, scores, -float("inf"))  # (BLOCK_M, BLOCK_N)
        new_largest = tl.maximum(largest, tl.max(scores, axis=1))  # (BLOCK_M,)
        base = tl.where(new_largest == -float("inf"), 0.0, new_largest)  # (BLOCK_M,), no key so far
        # Scaled behind the difference: of products, the compiler rounds one and not the other.
        shrink = tl.exp2((largest - base) * scale)  # (BLOCK_M,)
        p = tl.exp2((scores - base[:, None]) * scale)  # (BLOCK_M, BLOCK_N)
        total = total * shrink + tl.sum(p, axis=1)
        context = product(rounded(p, v.dtype), v, context * shrink[:, None], INPUT_PRECISION)  # (BLOCK_M, BLOCK_D)
        largest = new_largest
    total = tl.where(query_mask, total, 1.0)  # (BLOCK_M,), of rows that are no query nothing was summed
    context = rounded(context / total[:, None], context_ptr.dtype.element_ty)  # (BLOCK_M, BLOCK_D)
    mask = query_mask[:, None] & (dims < HEAD_DIM)[None, :]
    tl.store(context_ptr + pixel[:, None].to(tl.int64) * channels + head * HEAD_DIM + dims[None, :], context, mask=mask)


@triton.jit(do_not_specialize=["rows", "width", "hidden", "eps"])
def norm_mlp_kernel(
    tokens_ptr,  # (rows, D), read and written
    norm_weight_ptr,  # (D,)
    norm_bias_ptr,
    weight1_ptr,  # (M, D)
    bias1_ptr,  # (M,)
    weight2_ptr,  # (D, M)
    bias2_ptr,  # (D,)
    rows,
    width,
    hidden,
    eps,
    ALIGN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """tokens += activation(layer norm(tokens) · weight1ᵀ + bias1) · weight2ᵀ + bias2; hidden units stay on the chip."""
    width = aligned(width, ALIGN)
    hidden = aligned(hidden, ALIGN)
    first_row = tl.program_id(0).to(rows.dtype) * BLOCK_M
    row = first_row + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
    row_mask = tl.arange(0, BLOCK_M) < rows - first_row  # (BLOCK_M,), where the sum itself may overflow
    columns_a = tl.arange(0, BLOCK_A)  # (BLOCK_A,)
    columns_b = BLOCK_A + tl.arange(0, BLOCK_B)  # (BLOCK_B,)
    mean, inverse = _statistics(tokens_ptr, row, row_mask, width, eps, BLOCK_K, BLOCK_M)
    sums_a = tl.zeros((BLOCK_M, BLOCK_A), dtype=tl.float32)
    sums_b = tl.zeros((BLOCK_M, BLOCK_B), dtype=tl.float32)
    for first in range(0, hidden, BLOCK_H):
        units = first + tl.arange(0, BLOCK_H)  # (BLOCK_H,)
        h = tl.zeros((BLOCK_M, BLOCK_H), dtype=tl.float32)
        for start in range(0, width, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)  # (BLOCK_K,)
            x = _normalised(tokens_ptr, row, row_mask, k, width, mean, inverse, norm_weight_ptr, norm_bias_ptr)
            weight1 = load_weight(weight1_ptr, k, width, units, hidden, width)  # (BLOCK_K, BLOCK_H)
            h = product(x, weight1, h, INPUT_PRECISION)  # (BLOCK_M, BLOCK_H)
        h += per_channel(bias1_ptr, units, hidden)[None, :]
        h = rounded(activate(h, ACTIVATION), tokens_ptr.dtype.element_ty)  # (BLOCK_M, BLOCK_H)
        weight2_a = load_weight(weight2_ptr, units, hidden, columns_a, width, hidden)  # (BLOCK_H, BLOCK_A)
        sums_a = product(h, weight2_a, sums_a, INPUT_PRECISION)  # (BLOCK_M, BLOCK_A)
        weight2_b = load_weight(weight2_ptr, units, hidden, columns_b, width, hidden)  # (BLOCK_H, BLOCK_B)
        sums_b = product(h, weight2_b, sums_b, INPUT_PRECISION)  # (BLOCK_M, BLOCK_B)
    tl.debug_barrier()  # all warps have read the tokens that some now write
    _add_to_tokens(sums_a, bias2_ptr, tokens_ptr, row, row_mask, columns_a, width)
    _add_to_tokens(sums_b, bias2_ptr, tokens_ptr, row, row_mask, columns_b, width)
