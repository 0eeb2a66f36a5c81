"""The transformer stack of a MobileViT block: 4·L + 2 launches, tokens in the order of the image throughout.

A token is a pixel, so neither unfolding nor folding moves anything: attention computes which pixels a sequence has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.triton.conv2d_bias_act import pointwise
from mobilevit_fast.kernels.triton.launch import (
    alignment,
    blocks,
    channels_last,
    dense,
    empty_image,
    input_precision,
    launch,
    power_of_two,
)
from mobilevit_fast.kernels.triton.tiles import ALL_REGISTERS, Tile, column_block, row_block
from mobilevit_fast.kernels.triton.transformer_kernels import (
    attention_kernel,
    norm_linear_kernel,
    norm_mlp_kernel,
)
from mobilevit_fast.kernels.weights import StackWeights


def _pieces(width: int) -> dict[str, int]:
    """Two powers of two that hold a row of ``width`` columns together with little to spare."""
    first = power_of_two(width, 32) // 2
    return {"BLOCK_A": first, "BLOCK_B": power_of_two(max(1, width - first))}


def _linear_rule(dtype: torch.dtype, rows: int, outputs: int) -> Tile:
    block_n = column_block(outputs, 32 if dtype == torch.float32 else 128)
    block_m = 32 if dtype == torch.float32 else row_block(rows, blocks(outputs, block_n), 64)
    return {
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "BLOCK_K": 16 if dtype == torch.float32 else 32,
        "num_warps": 4,
        "num_stages": 2,
        **ALL_REGISTERS,
    }


def _attention_rule(dtype: torch.dtype, tokens: int, heads: int, token_count: int, head_dim: int) -> Tile:
    single, block_d = dtype == torch.float32, power_of_two(head_dim)
    most = max(16, 4096 // block_d)  # tiles of wide heads have to fit 64 KiB of shared memory
    block_m = min(32 if single else row_block(tokens, heads, 64), most)
    block_n = 16 if single else min(64 if block_d <= 32 else 32, power_of_two(max(token_count, block_m)), most)
    return {
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "BLOCK_D": block_d,
        "num_warps": 4,
        "num_stages": 2 if block_d <= 128 else 1,
        **ALL_REGISTERS,
    }


def _mlp_rule(dtype: torch.dtype, rows: int, width: int) -> Tile:
    single = dtype == torch.float32
    block_m = row_block(rows, 1, 32 if single else 64)
    return {
        "BLOCK_M": block_m,
        "BLOCK_H": 16 if single else 32,
        "BLOCK_K": 16 if single else 32,
        **_pieces(width),
        "num_warps": 8 if block_m >= (32 if width > 192 else 64) else 4,
        "num_stages": 2,
        **ALL_REGISTERS,
    }


def _norm_linear(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str,
    y: Tensor,
) -> Tensor:
    """Write activation(scale·(layer norm(x) · weightᵀ) + bias) of every pixel into ``y``, returned."""
    rows, width, outputs = x.numel() // x.shape[1], x.shape[1], weight.shape[0]
    launch(
        norm_linear_kernel,
        lambda tile: blocks(rows, tile["BLOCK_M"]) * blocks(outputs, tile["BLOCK_N"]),
        (rows, width, outputs),
        _linear_rule(x.dtype, rows, outputs),
        x_ptr=x,
        norm_weight_ptr=dense(norm_weight),
        norm_bias_ptr=dense(norm_bias),
        weight_ptr=dense(weight),
        scale_ptr=dense(scale),
        bias_ptr=dense(bias),
        y_ptr=y,
        rows=rows,
        width=width,
        outputs=outputs,
        eps=eps,
        ALIGN=alignment(width),
        OUT_ALIGN=alignment(outputs),
        ACTIVATION=activation,
        INPUT_PRECISION=input_precision(x),
    )
    return y


def _attention(qkv: Tensor, num_heads: int, patch_size: Sequence[int], context: Tensor) -> Tensor:
    """Write attention of every head into ``context`` (N, D, H, W), returned."""
    batch, channels, height, width = context.shape
    columns = width // patch_size[1]
    token_count, rows = height // patch_size[0] * columns, batch * height * width
    head_dim = channels // num_heads
    launch(
        attention_kernel,
        lambda tile: batch * blocks(height * width, tile["BLOCK_M"]) * num_heads,
        (rows, channels, num_heads, token_count),
        _attention_rule(qkv.dtype, rows, num_heads, token_count, head_dim),
        qkv_ptr=qkv,
        context_ptr=context,
        tokens=rows,
        image_tokens=height * width,
        token_count=token_count,
        columns=columns,
        height=height,
        width=width,
        heads=num_heads,
        scale=math.log2(math.e) / math.sqrt(head_dim),
        HEAD_DIM=head_dim,
        PATCH_H=patch_size[0],
        PATCH_W=patch_size[1],
        INPUT_PRECISION=input_precision(qkv),
    )
    return context


def _norm_mlp(
    tokens: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    eps: float,
    activation: str,
) -> None:
    """tokens += fc2(activation(fc1(layer norm(tokens))))."""
    width, hidden = tokens.shape[1], fc1_weight.shape[0]
    rows = tokens.numel() // width
    launch(
        norm_mlp_kernel,
        lambda tile: blocks(rows, tile["BLOCK_M"]),
        (rows, width, hidden),
        _mlp_rule(tokens.dtype, rows, width),
        tokens_ptr=tokens,
        norm_weight_ptr=dense(norm_weight),
        norm_bias_ptr=dense(norm_bias),
        weight1_ptr=dense(fc1_weight),
        bias1_ptr=dense(fc1_bias),
        weight2_ptr=dense(fc2_weight),
        bias2_ptr=dense(fc2_bias),
        rows=rows,
        width=width,
        hidden=hidden,
        eps=eps,
        ALIGN=alignment(width, hidden),
        ACTIVATION=activation,
        INPUT_PRECISION=input_precision(tokens),
    )


def mobilevit_transformer(
    x: Tensor,
    w: StackWeights,
    num_heads: int,
    patch_size: Sequence[int],
    eps: float,
    mlp_activation: str,
    out_activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.mobilevit_transformer`."""
    x = channels_last(x)
    _, _, *size = x.shape
    channels, outputs = w.in_weight.shape[0], w.out_weight.shape[0]
    tokens = pointwise(x, w.in_weight, None, w.in_bias, "none", empty_image(x, channels, *size))
    whole = [blocks(pixels, patch) * patch for pixels, patch in zip(size, patch_size, strict=True)]
    resized = whole != size
    if resized:
        resized_tokens = F.interpolate(tokens, whole, mode="bilinear", align_corners=False)
        tokens = empty_image(x, channels, *whole).copy_(resized_tokens)

    qkv, context = empty_image(x, 3 * channels, *whole), empty_image(x, channels, *whole)
    for i in range(w.fc1_weight.shape[0]):
        bias = None if w.qkv_bias is None else w.qkv_bias[i]
        _norm_linear(tokens, *w.norm("norm1", i), w.qkv_weight[i], None, bias, eps, "none", qkv)
        _attention(qkv, num_heads, patch_size, context)
        pointwise(context, w.proj_weight[i, :, :, None, None], None, w.proj_bias[i], "none", tokens, residual=tokens)
        mlp = (w.fc1_weight[i], w.fc1_bias[i], w.fc2_weight[i], w.fc2_bias[i])
        _norm_mlp(tokens, *w.norm("norm2", i), *mlp, eps, mlp_activation)

    y = empty_image(x, outputs, *size)
    if not resized:
        last, out = w.norm("norm"), w.out_weight.flatten(1)
        return _norm_linear(tokens, *last, out, w.out_scale, w.out_bias, eps, out_activation, y)
    weight, bias = (vector.to(x.dtype) for vector in w.norm("norm"))
    normed = F.layer_norm(tokens.permute(0, 2, 3, 1), (channels,), weight, bias, eps)  # (N, H, W, D)
    restored = channels_last(F.interpolate(normed.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False))
    return pointwise(restored, w.out_weight, w.out_scale, w.out_bias, out_activation, y)
