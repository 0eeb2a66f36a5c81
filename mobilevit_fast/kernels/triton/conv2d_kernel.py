"""The kernel of :mod:`mobilevit_fast.kernels.triton.conv2d_bias_act`."""

import triton
import triton.language as tl

from mobilevit_fast.kernels.triton.device import activate, aligned, epilogue, load_weight, per_channel, product, rounded


@triton.jit
def _window_products(
    sums,  # (BLOCK_M, BLOCK_N)
    x_ptr,
    weight_ptr,  # at the first channel of this input
    channels,
    weight_row_stride,
    weight_tap_stride,
    image,  # (BLOCK_M,)
    top,  # (BLOCK_M,), far outside where there is no such row
    left,
    outputs_at,  # (BLOCK_N,)
    outputs,
    height,
    width,
    dilation_h,
    dilation_w,
    taps,
    kernel_w,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Add the products of one input, tap after tap, channels in blocks."""
    channel_blocks = tl.cdiv(channels, BLOCK_K)
    for step in range(taps * channel_blocks):
        tap = step // channel_blocks
        c = (step % channel_blocks) * BLOCK_K + tl.arange(0, BLOCK_K)  # (BLOCK_K,)
        h = top + tap // kernel_w * dilation_h  # (BLOCK_M,)
        w = left + tap % kernel_w * dilation_w  # (BLOCK_M,)
        inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)  # (BLOCK_M,)
        pixel = (image * height + h).to(tl.int64) * width + w  # (BLOCK_M,)
        x_mask = inside[:, None] & (c < channels)[None, :]
        x = tl.load(x_ptr + pixel[:, None] * channels + c[None, :], mask=x_mask, other=0.0)  # (BLOCK_M, BLOCK_K)
        tap_ptr = weight_ptr + tap * weight_tap_stride
        weight = load_weight(tap_ptr, c, channels, outputs_at, outputs, weight_row_stride)  # (BLOCK_K, BLOCK_N)
        sums = product(x, weight, sums, INPUT_PRECISION)
    return sums


@triton.jit
def _flat_products(
    sums,  # (BLOCK_M, BLOCK_N)
    x_ptr,
    weight_ptr,
    channels,
    weight_row_stride,
    image,
    top,
    left,
    outputs_at,
    outputs,
    height,
    width,
    dilation_h,
    dilation_w,
    taps,
    kernel_w,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Add the products of an input of few channels: taps and channels together are one row of factors."""
    factors = taps * channels
    for start in range(0, factors, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)  # (BLOCK_K,)
        tap, c = k // channels, k % channels  # (BLOCK_K,)
        h = top[:, None] + (tap // kernel_w * dilation_h)[None, :]  # (BLOCK_M, BLOCK_K)
        w = left[:, None] + (tap % kernel_w * dilation_w)[None, :]  # (BLOCK_M, BLOCK_K)
        inside = (h >= 0) & (h < height) & (w >= 0) & (w < width) & (k < factors)[None, :]
        pixel = (image[:, None] * height + h).to(tl.int64) * width + w  # (BLOCK_M, BLOCK_K)
        x = tl.load(x_ptr + pixel * channels + c[None, :], mask=inside, other=0.0)  # (BLOCK_M, BLOCK_K)
        weight = load_weight(weight_ptr, k, factors, outputs_at, outputs, weight_row_stride)  # (BLOCK_K, BLOCK_N)
        sums = product(x, weight, sums, INPUT_PRECISION)
    return sums


_SIZES = (
    *("channels", "channels2", "outputs", "weight_row_stride", "y_stride", "bias_stride", "pixels"),
    *("height", "width", "out_height", "out_width", "stride_h", "stride_w", "padding_h", "padding_w"),
    *("dilation_h", "dilation_w"),
)
"""Numbers whose values do not make another kernel: what matters of them is said by ALIGN and OUT_ALIGN."""


@triton.jit(do_not_specialize=_SIZES)
def conv2d_kernel(
    x_ptr,  # (N·H·W, C1)
    x2_ptr,  # (N·H·W, C2) or None
    weight_ptr,  # (O, taps, C1 + C2)
    scale_ptr,  # (O,) or None
    bias_ptr,  # (O,), or (N, O) with rows bias_stride apart, or None
    residual_ptr,  # as y, or None
    y_ptr,  # (N·Ho·Wo, O), rows y_stride apart
    channels,
    channels2,
    outputs,
    weight_row_stride,
    y_stride,
    bias_stride,
    pixels,  # N·Ho·Wo
    height,
    width,
    out_height,
    out_width,
    stride_h,
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    taps,
    kernel_w,
    ALIGN: tl.constexpr,
    OUT_ALIGN: tl.constexpr,
    FLAT: tl.constexpr,
    IMAGE_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    channels = aligned(channels, ALIGN)
    channels2 = aligned(channels2, ALIGN)
    weight_row_stride = aligned(weight_row_stride, ALIGN)
    outputs = aligned(outputs, OUT_ALIGN)
    y_stride = aligned(y_stride, OUT_ALIGN)
    column_blocks = tl.cdiv(outputs, BLOCK_N)
    first = (tl.program_id(0) // column_blocks).to(pixels.dtype) * BLOCK_M
    row = first + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
    row_mask = tl.arange(0, BLOCK_M) < pixels - first  # (BLOCK_M,), where the sum itself may overflow
    outputs_at = tl.program_id(0) % column_blocks * BLOCK_N + tl.arange(0, BLOCK_N)  # (BLOCK_N,)
    image = row // out_width // out_height  # (BLOCK_M,)
    left = row % out_width * stride_w - padding_w  # (BLOCK_M,)
    top = row // out_width % out_height * stride_h - padding_h  # (BLOCK_M,)
    top = tl.where(row_mask, top, -(1 << 30))  # (BLOCK_M,)

    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    if FLAT:
        sums = _flat_products(
            sums, x_ptr, weight_ptr, channels, weight_row_stride, image, top, left, outputs_at, outputs,
            height, width, dilation_h, dilation_w, taps, kernel_w, INPUT_PRECISION, BLOCK_K,
        )  # fmt: skip
    else:
        sums = _window_products(
            sums, x_ptr, weight_ptr, channels, weight_row_stride, channels + channels2, image, top, left, outputs_at,
            outputs, height, width, dilation_h, dilation_w, taps, kernel_w, INPUT_PRECISION, BLOCK_K,
        )  # fmt: skip
        if x2_ptr is not None:
            sums = _window_products(
                sums, x2_ptr, weight_ptr + channels, channels2, weight_row_stride, channels + channels2, image, top,
                left, outputs_at, outputs, height, width, dilation_h, dilation_w, taps, kernel_w, INPUT_PRECISION,
                BLOCK_K,
            )  # fmt: skip

    y_mask = row_mask[:, None] & (outputs_at < outputs)[None, :]
    if IMAGE_BIAS:
        if scale_ptr is not None:
            sums *= per_channel(scale_ptr, outputs_at, outputs)[None, :]
        sums += tl.load(
            bias_ptr + image[:, None].to(tl.int64) * bias_stride + outputs_at[None, :], mask=y_mask, other=0.0
        )
        y = activate(sums, ACTIVATION)  # (BLOCK_M, BLOCK_N)
    else:
        y = epilogue(sums, scale_ptr, bias_ptr, outputs_at, outputs, ACTIVATION)  # (BLOCK_M, BLOCK_N)
    at = row[:, None].to(tl.int64) * y_stride + outputs_at[None, :]  # (BLOCK_M, BLOCK_N)
    if residual_ptr is not None:
        y += tl.load(residual_ptr + at, mask=y_mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, rounded(y, y_ptr.dtype.element_ty), mask=y_mask)
