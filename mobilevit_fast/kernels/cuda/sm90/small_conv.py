"""Weights of dense 3x3 convolutions in the order of the kernel for few images, ``small_conv_sm90_kernel.h``."""

from __future__ import annotations

import torch
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import pair_tiles

CHANNELS = (48, 64, 80, 96, 128, 160)
"""Of the one or two inputs, and as many outputs (``ConvShapes``)."""


def has(weight: Tensor) -> bool:
    """Whether the kernel convolves with such a weight (O, C, kh, kw)."""
    outputs, inputs, *window = weight.shape
    known = window == [3, 3] and outputs in CHANNELS and inputs in (outputs, 2 * outputs)
    return known and weight.dtype == torch.float16


def pack(weight: Tensor) -> Tensor:
    """A weight (O, C, 3, 3) as (O / 8, 9 * C / 32, 32, 8)."""
    return pair_tiles(weight.permute(0, 2, 3, 1).flatten(1))
