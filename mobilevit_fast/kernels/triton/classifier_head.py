"""Classifier head: one launch for expansion, activation and mean, whose expanded tensor stays in registers; then torch.

A program takes some of the expanded channels of one image through all its pixels. The linear layer over (N, E) is a
plain matrix product, which torch's library does as well as any kernel here would.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from mobilevit_fast.kernels.triton.device import aligned, epilogue, load_tile, load_weight, product, rounded
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
from mobilevit_fast.kernels.triton.tiles import Tile
from mobilevit_fast.kernels.weights import HeadWeights


@triton.jit(do_not_specialize=["channels", "expanded", "pixels"])
def expand_mean_kernel(
    x_ptr,  # (N·H·W, C)
    weight_ptr,  # (E, C)
    scale_ptr,  # (E,) or None
    bias_ptr,
    mean_ptr,  # (N, E)
    channels,
    expanded,
    pixels,  # H·W
    ALIGN: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    channels = aligned(channels, ALIGN)
    column_blocks = tl.cdiv(expanded, BLOCK_N)
    image = (tl.program_id(0) // column_blocks).to(tl.int64)
    e = tl.program_id(0) % column_blocks * BLOCK_N + tl.arange(0, BLOCK_N)  # (BLOCK_N,)
    image_ptr = x_ptr + image * pixels * channels
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for first in range(0, pixels, BLOCK_M):
        row = first + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
        sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for start in range(0, channels, BLOCK_K):
            c = start + tl.arange(0, BLOCK_K)  # (BLOCK_K,)
            x = load_tile(image_ptr, row, channels, row < pixels, c, channels)  # (BLOCK_M, BLOCK_K)
            weight = load_weight(weight_ptr, c, channels, e, expanded, channels)  # (BLOCK_K, BLOCK_N)
            sums = product(x, weight, sums, INPUT_PRECISION)  # (BLOCK_M, BLOCK_N)
        y = epilogue(sums, scale_ptr, bias_ptr, e, expanded, ACTIVATION)  # (BLOCK_M, BLOCK_N)
        total += tl.sum(tl.where((row < pixels)[:, None], y, 0.0), axis=0)
    mean = rounded(total / pixels, mean_ptr.dtype.element_ty)  # (BLOCK_N,)
    tl.store(mean_ptr + image * expanded + e, mean, mask=e < expanded)


def _rule(dtype: torch.dtype, images: int, pixels: int, expanded: int, channels: int) -> Tile:
    many = images * blocks(expanded, 64) >= 256
    return {
        "BLOCK_M": min(power_of_two(pixels), 64 if dtype != torch.float32 else 32),
        "BLOCK_N": 64 if many and dtype != torch.float32 else 32 if images > 8 else 16,
        "BLOCK_K": min(power_of_two(channels), 32),
        "num_warps": 4,
        "num_stages": 3,
    }


def classifier_head(
    x: Tensor,
    w: HeadWeights,
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.classifier_head`."""
    x = channels_last(x)
    images, channels, height, width = x.shape
    expanded, pixels = w.expand_weight.shape[0], height * width
    mean = empty_image(x, expanded, 1, 1).flatten(1)  # (N, E)
    rule = _rule(x.dtype, images, pixels, expanded, channels)
    launch(
        expand_mean_kernel,
        lambda tile: images * blocks(expanded, tile["BLOCK_N"]),
        (images, pixels, expanded, channels),
        rule,
        x_ptr=x,
        weight_ptr=w.expand_weight.flatten(1).contiguous(),
        scale_ptr=dense(w.expand_scale),
        bias_ptr=dense(w.expand_bias),
        mean_ptr=mean,
        channels=channels,
        expanded=expanded,
        pixels=pixels,
        ALIGN=alignment(channels),
        ACTIVATION=activation,
        INPUT_PRECISION=input_precision(x),
    )
    return F.linear(mean, w.weight, None if w.bias is None else w.bias.to(x.dtype))  # (N, K)
