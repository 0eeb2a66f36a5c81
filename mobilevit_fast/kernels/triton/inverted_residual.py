"""Inverted residual in one launch or two, by its stride.

With stride 1 the expanded tensor is written once and read once (its neighbours overlap in the cache): 2·E of the 4·E
elements a pixel that four separate layers move. Not at all would take the expansion of each pixel nine times, once for
each tap, since Triton cannot look at a neighbour's element in shared memory: nine times the MACs and exponentials.
With stride 2 that is 9/4 times the MACs (twice that for more outputs than one block has columns), for an expanded
tensor that is the largest of the network: one launch, in which it never reaches memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from mobilevit_fast.kernels.triton.conv2d_bias_act import pointwise
from mobilevit_fast.kernels.triton.device import (
    aligned,
    epilogue,
    load_tile,
    load_weight,
    per_channel,
    product,
    rounded,
)
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
from mobilevit_fast.kernels.triton.tiles import ALL_REGISTERS, Tile, row_block
from mobilevit_fast.kernels.weights import ResidualWeights

_SIZES = (
    *("channels", "expanded", "outputs", "pixels", "height", "width", "out_height", "out_width"),
    *("stride_h", "stride_w", "dilation_h", "dilation_w"),
)


@triton.jit
def _tap(image, top, left, height, width, dilation_h, dilation_w, tap, KERNEL_W: tl.constexpr):
    """Where a tap of every window lies: whether inside of the image, and its pixel; (BLOCK_M,) each."""
    h = top + tap // KERNEL_W * dilation_h
    w = left + tap % KERNEL_W * dilation_w
    inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
    return inside, (image * height + h).to(tl.int64) * width + w


@triton.jit(do_not_specialize=_SIZES)
def depthwise_project_kernel(
    x_ptr,  # (N·H·W, C)
    expand_weight_ptr,  # (E, C); None where x is the expanded tensor, C = E
    expand_scale_ptr,  # (E,) or None
    expand_bias_ptr,
    depthwise_weight_ptr,  # (taps, E)
    depthwise_scale_ptr,  # (E,) or None
    depthwise_bias_ptr,
    project_weight_ptr,  # (O, E)
    project_scale_ptr,  # (O,) or None
    project_bias_ptr,
    residual_ptr,  # (N·Ho·Wo, O) or None
    y_ptr,  # (N·Ho·Wo, O)
    channels,
    expanded,
    outputs,
    pixels,  # N·Ho·Wo
    height,
    width,
    out_height,
    out_width,
    stride_h,
    stride_w,
    dilation_h,
    dilation_w,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    ALIGN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    channels = aligned(channels, ALIGN)
    expanded = aligned(expanded, ALIGN)
    outputs = aligned(outputs, ALIGN)
    column_blocks = tl.cdiv(outputs, BLOCK_N)
    first_row = (tl.program_id(0) // column_blocks).to(pixels.dtype) * BLOCK_M
    row = first_row + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
    row_mask = tl.arange(0, BLOCK_M) < pixels - first_row  # (BLOCK_M,), where the sum itself may overflow
    outputs_at = tl.program_id(0) % column_blocks * BLOCK_N + tl.arange(0, BLOCK_N)  # (BLOCK_N,)
    image = row // out_width // out_height  # (BLOCK_M,)
    left = row % out_width * stride_w - (KERNEL_W - 1) // 2 * dilation_w  # (BLOCK_M,)
    top = row // out_width % out_height * stride_h - (KERNEL_H - 1) // 2 * dilation_h  # (BLOCK_M,)
    top = tl.where(row_mask, top, -(1 << 30))  # (BLOCK_M,)

    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for first in range(0, expanded, BLOCK_E):
        e = first + tl.arange(0, BLOCK_E)  # (BLOCK_E,)
        features = tl.zeros((BLOCK_M, BLOCK_E), dtype=tl.float32)
        if expand_weight_ptr is None:
            for tap in tl.static_range(KERNEL_H * KERNEL_W):  # unrolled: loads of all taps are under way together
                inside, pixel = _tap(image, top, left, height, width, dilation_h, dilation_w, tap, KERNEL_W)
                value = load_tile(x_ptr, pixel, channels, inside, e, expanded).to(tl.float32)  # (BLOCK_M, BLOCK_E)
                weight = per_channel(depthwise_weight_ptr + tap * expanded, e, expanded)  # (BLOCK_E,)
                features += value * weight[None, :]
        else:
            for tap in range(KERNEL_H * KERNEL_W):
                inside, pixel = _tap(image, top, left, height, width, dilation_h, dilation_w, tap, KERNEL_W)
                value = tl.zeros((BLOCK_M, BLOCK_E), dtype=tl.float32)
                for start in range(0, channels, BLOCK_C):
                    c = start + tl.arange(0, BLOCK_C)  # (BLOCK_C,)
                    x = load_tile(x_ptr, pixel, channels, inside, c, channels)  # (BLOCK_M, BLOCK_C)
                    expand = load_weight(expand_weight_ptr, c, channels, e, expanded, channels)  # (BLOCK_C, BLOCK_E)
                    value = product(x, expand, value, INPUT_PRECISION)  # (BLOCK_M, BLOCK_E)
                value = epilogue(value, expand_scale_ptr, expand_bias_ptr, e, expanded, ACTIVATION)
                value = tl.where(inside[:, None], value, 0.0)  # padding is of the expanded tensor
                weight = per_channel(depthwise_weight_ptr + tap * expanded, e, expanded)  # (BLOCK_E,)
                features += value * weight[None, :]
        features = epilogue(features, depthwise_scale_ptr, depthwise_bias_ptr, e, expanded, ACTIVATION)
        project = load_weight(project_weight_ptr, e, expanded, outputs_at, outputs, expanded)  # (BLOCK_E, BLOCK_N)
        sums = product(rounded(features, project.dtype), project, sums, INPUT_PRECISION)

    y = epilogue(sums, project_scale_ptr, project_bias_ptr, outputs_at, outputs, "none")  # (BLOCK_M, BLOCK_N)
    at = row[:, None].to(tl.int64) * outputs + outputs_at[None, :]  # (BLOCK_M, BLOCK_N)
    mask = row_mask[:, None] & (outputs_at < outputs)[None, :]
    if residual_ptr is not None:
        y += tl.load(residual_ptr + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, rounded(y, y_ptr.dtype.element_ty), mask=mask)


def _rule(dtype: torch.dtype, rows: int, outputs: int, channels: int, fused: bool) -> Tile:
    single = dtype == torch.float32
    block_n = min(power_of_two(outputs), 64 if single else 128)
    block_m = 32 if single else row_block(rows, blocks(outputs, block_n), 64)
    if not fused and not single and block_m == 32:
        block_m = 16  # of 32 rows ptxas keeps to 128 registers and spills
    return {
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "BLOCK_E": 16 if single else 32,
        "BLOCK_C": min(power_of_two(channels), 16 if single else 32) if fused else 16,
        "num_warps": 8 if fused and block_m >= 32 and not single else 4,
        "num_stages": 2,
        **(ALL_REGISTERS if fused else {}),
    }


def inverted_residual(
    x: Tensor,
    w: ResidualWeights,
    stride: Sequence[int],
    dilation: Sequence[int],
    residual: bool,
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.inverted_residual`."""
    x = channels_last(x)
    _, channels, height, width = x.shape
    expanded, outputs = w.expand_weight.shape[0], w.project_weight.shape[0]
    fused = max(stride) > 1
    source = x
    if not fused:
        source = empty_image(x, expanded, height, width)
        pointwise(x, w.expand_weight, w.expand_scale, w.expand_bias, activation, source)
    y = empty_image(x, outputs, blocks(height, stride[0]), blocks(width, stride[1]))
    rows = y.numel() // outputs
    inputs = channels if fused else expanded
    rule = _rule(x.dtype, rows, outputs, channels, fused)
    launch(
        depthwise_project_kernel,
        lambda tile: blocks(rows, tile["BLOCK_M"]) * blocks(outputs, tile["BLOCK_N"]),
        (rows, channels, expanded, outputs, *w.depthwise_weight.shape[2:], *stride),
        rule,
        x_ptr=source,
        expand_weight_ptr=w.expand_weight.flatten(1).contiguous() if fused else None,
        expand_scale_ptr=dense(w.expand_scale) if fused else None,
        expand_bias_ptr=dense(w.expand_bias) if fused else None,
        depthwise_weight_ptr=w.depthwise_weight.permute(2, 3, 0, 1).contiguous(),  # (kh, kw, E, 1)
        depthwise_scale_ptr=dense(w.depthwise_scale),
        depthwise_bias_ptr=dense(w.depthwise_bias),
        project_weight_ptr=w.project_weight.flatten(1).contiguous(),
        project_scale_ptr=dense(w.project_scale),
        project_bias_ptr=dense(w.project_bias),
        residual_ptr=x if residual else None,
        y_ptr=y,
        channels=inputs,
        expanded=expanded,
        outputs=outputs,
        pixels=rows,
        height=height,
        width=width,
        out_height=y.shape[2],
        out_width=y.shape[3],
        stride_h=stride[0],
        stride_w=stride[1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        KERNEL_H=w.depthwise_weight.shape[2],
        KERNEL_W=w.depthwise_weight.shape[3],
        ALIGN=alignment(inputs, expanded, outputs),
        ACTIVATION=activation,
        INPUT_PRECISION=input_precision(x),
    )
    return y
