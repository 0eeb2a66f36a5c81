"""Weights of dense 3x3 convolutions in the order of ``csrc/cuda/sm90/conv3x3_sm90_kernel.h``."""

from __future__ import annotations

import torch
from torch import Tensor

CHANNELS = (48, 64, 80, 96, 128, 160)
"""Channels of each of the one or two inputs, and of the output (``kConv3x3Sm90Variants``)."""

DIVIDED = (96, 128, 160)
"""Output channels of which some variants have only ``PART`` in a tile."""
PART = 32


def has(weight: Tensor) -> bool:
    """Whether these kernels convolve with such a weight (O, C, kh, kw)."""
    outputs, inputs, *window = weight.shape
    return window == [3, 3] and outputs in CHANNELS and inputs in (outputs, 2 * outputs)


def chunk(channels: int) -> int:
    """Input channels that come to shared memory at once."""
    return 32 if channels % 32 == 0 else 16


def output_order(outputs: int, device: torch.device) -> Tensor:
    """The output that each column of a product is, (outputs,).

    A lane has two neighbouring columns of every eight; so that its outputs are neighbours, four tiles of eight columns
    share 32 outputs, or two 16 where that is what remains.
    """
    column = torch.arange(outputs, device=device)
    tiles = torch.where(column < outputs // 32 * 32, 4, 2)
    m = column % 32
    return column - m + m % 8 // 2 * (2 * tiles) + m // 8 * 2 + m % 2


def pack(weight: Tensor) -> list[Tensor]:
    """A weight (O, C, 3, 3) for variants that have all outputs and, where there are some, those that have 32."""
    pieces = shared_order(weight, chunk(weight.shape[0]))  # (C / chunk, 9, O, chunk)
    if weight.shape[0] not in DIVIDED:
        return [pieces]
    return [pieces, pieces.unflatten(2, (-1, PART)).permute(2, 0, 1, 3, 4)]  # (O / 32, C / chunk, 9, 32, chunk)


def shared_order(weight: Tensor, depth: int) -> Tensor:
    """A weight (O, C, kh, kw) as it lies in shared memory, (C / depth, kh * kw, O, depth), swizzled.

    Rows of 64 or 32 bytes lie one behind the other; of an address, bits 4 and up are changed by bits 7 and up, two bits
    or one of them, so that rows of eight outputs lie in different banks.
    """
    outputs, inputs = weight.shape[:2]
    rows = weight.flatten(2)[output_order(outputs, weight.device)]  # (O, C, taps)
    pieces = rows.unflatten(1, (inputs // depth, depth)).permute(1, 3, 0, 2)  # (C / depth, taps, O, depth)
    units = depth // 8  # of 16 bytes in a row
    row = torch.arange(outputs, device=weight.device)[:, None]
    unit = torch.arange(units, device=weight.device)[None]
    source = unit ^ (row * units // 8 % units)  # (O, units)
    return pieces.unflatten(3, (units, 8))[:, :, row, source].flatten(3)  # (C / depth, taps, O, depth)
