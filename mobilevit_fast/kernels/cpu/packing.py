"""Sizes of parameters in the order of the C++ CPU kernels (``csrc/cpu/gemm/gemm_layout.h``)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from mobilevit_fast import native

_BLOCK, _ROW_GROUP, _TILE_SIDE = 16, 12, 16


def _padded(size: int, multiple: int) -> int:
    return (size + multiple - 1) // multiple * multiple


def word_factors(*weights: Tensor) -> int:
    """Numbers in a 32-bit word of these weights when packed together for the kernel variant in use: 1 or 2.

    ``weights`` are (O, C, ...), or (layers, O, C).
    """
    extension = native.extension()
    return 1 if extension is None else int(extension.word_factors(*_products(weights)))


def multiplies_tiles(*weights: Tensor) -> bool:
    """Whether the kernel variant in use multiplies by these weights in tiles of a matrix unit."""
    extension = native.extension()
    return extension is not None and bool(extension.multiplies_tiles(*_products(weights)))


def _products(weights: Sequence[Tensor]) -> tuple[bool, bool]:
    """Whether all are bfloat16, and all sums of an even number of products."""
    even = all(weight.shape[2 if weight.dim() == 3 else 1] % 2 == 0 for weight in weights)
    return all(weight.dtype == torch.bfloat16 for weight in weights), even


def panel_floats(weight: Tensor, factors: int = 1) -> int:
    """Of a dense convolution (O, C, kh, kw) or a linear layer (O, C), with its scales and biases."""
    return (prod(weight.shape[1:]) // factors + 2) * _padded(weight.shape[0], _BLOCK)


def conv2d_floats(weight: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> int:
    """Of a dense convolution, which some windows and sizes pack by Winograd's algorithm."""
    extension = native.extension()
    if extension is None:
        return panel_floats(weight)
    if multiplies_tiles(weight):
        return panel_floats(weight, word_factors(weight))
    outputs, channels, *kernel = weight.shape
    taps: int = extension.conv2d_taps(outputs, channels, kernel, stride, dilation)
    return (taps * channels + 2) * _padded(outputs, _BLOCK)


def depthwise_floats(weight: Tensor) -> int:
    """Of a depthwise convolution (C, 1, kh, kw), with its scales and biases."""
    return panel_floats(weight)


def row_group_floats(outputs: int, inputs: int, factors: int, tiles: bool) -> int:
    """Of a linear layer whose outputs are rows, with its scales and biases."""
    depth = inputs // factors
    if tiles:
        return (_padded(depth, _TILE_SIDE) + 2) * _padded(outputs, _TILE_SIDE)
    return (depth + 2) * _padded(outputs, _ROW_GROUP)
