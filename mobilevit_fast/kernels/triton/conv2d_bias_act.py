"""Dense convolution as an implicit matrix product: rows are pixels of the result, columns output channels.

Bytes of a call: every input pixel and the weight once from memory (windows overlap in the cache), the result once. The
stem's three channels would waste five sixths of a product over one tap at a time; windows of few elements are flattened
into one row of factors instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilevit_fast.kernels.triton.conv2d_kernel import conv2d_kernel
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
from mobilevit_fast.kernels.weights import ConvWeights

FLAT_LIMIT = 64
"""Windows of up to this many elements are one row of factors."""


def _rule(dtype: torch.dtype, rows: int, outputs: int, channels: int, factors: int | None) -> Tile:
    """Tiles by rule; ``factors`` is the length of a flattened window."""
    single = dtype == torch.float32
    block_n = column_block(outputs, 64 if single else 128)
    largest = 64 if block_n == 128 or factors is not None else 128
    block_m = 32 if single else row_block(rows, blocks(outputs, block_n), largest)
    block_k = min(power_of_two(channels), 32) if factors is None else power_of_two(factors)
    return {
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "BLOCK_K": min(block_k, 32) if single else block_k,
        "num_warps": 4,
        "num_stages": 3,
        **({} if single else ALL_REGISTERS),
    }


def convolve(
    x: Tensor,
    x2: Tensor | None,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
    y: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """Write a convolution of channels_last tensors, plus a residual, into ``y`` (N, O, Ho, Wo), returned.

    ``weight`` (O, C1 + C2, kh, kw) is best stored with its channels innermost. ``y`` comes from :func:`empty_image`, or
    is some of the channels of such a tensor. ``bias`` may be (N, O): one for each image. ``residual`` lies as
    ``y`` does, and may be ``y``.
    """
    batch, channels, height, width = x.shape
    outputs, total, kernel_h, kernel_w = weight.shape
    weight = weight.permute(0, 2, 3, 1)  # (O, kh, kw, C1 + C2)
    if not weight[0].is_contiguous():
        weight = weight.contiguous()
    out_height, out_width = y.shape[2:]
    rows, taps = batch * out_height * out_width, kernel_h * kernel_w
    flat = x2 is None and taps > 1 and taps * channels <= FLAT_LIMIT
    rule = _rule(x.dtype, rows, outputs, channels, taps * channels if flat else None)
    launch(
        conv2d_kernel,
        lambda tile: blocks(rows, tile["BLOCK_M"]) * blocks(outputs, tile["BLOCK_N"]),
        (rows, outputs, channels, total, taps),
        rule,
        x_ptr=x,
        x2_ptr=x2,
        weight_ptr=weight,
        scale_ptr=dense(scale),
        bias_ptr=dense(bias),
        residual_ptr=residual,
        y_ptr=y,
        channels=channels,
        channels2=total - channels,
        outputs=outputs,
        weight_row_stride=weight.stride(0),
        y_stride=y.stride(3),
        bias_stride=outputs,
        pixels=rows,
        height=height,
        width=width,
        out_height=out_height,
        out_width=out_width,
        stride_h=stride[0],
        stride_w=stride[1],
        padding_h=padding[0],
        padding_w=padding[1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        taps=taps,
        kernel_w=kernel_w,
        ALIGN=alignment(channels, total, weight.stride(0)),
        OUT_ALIGN=alignment(outputs, y.stride(3)),
        FLAT=flat,
        IMAGE_BIAS=bias is not None and bias.dim() == 2,
        ACTIVATION=activation,
        INPUT_PRECISION=input_precision(x),
    )
    return y


def pointwise(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    activation: str,
    y: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """Write a 1×1 convolution of a channels_last tensor, plus a residual, into ``y``, returned."""
    return convolve(x, None, weight, scale, bias, (1, 1), (0, 0), (1, 1), activation, y, residual)


def conv2d_bias_act(
    x: Tensor,
    x2: Tensor | None,
    w: ConvWeights,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.conv2d_bias_act`."""
    reach = [dilation[i] * (w.weight.shape[2 + i] - 1) + 1 for i in (0, 1)]
    size = [(x.shape[2 + i] + 2 * padding[i] - reach[i]) // stride[i] + 1 for i in (0, 1)]
    y = empty_image(x, w.weight.shape[0], *size)
    second = None if x2 is None else channels_last(x2)
    return convolve(channels_last(x), second, w.weight, w.scale, w.bias, stride, padding, dilation, activation, y)
