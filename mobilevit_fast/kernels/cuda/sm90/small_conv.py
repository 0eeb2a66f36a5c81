"""Weights of dense 3x3 convolutions in the order of the kernel for few images, ``small_conv_sm90_kernel.h``."""

from __future__ import annotations

from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import pair_tiles
from mobilevit_fast.kernels.cuda.sm90 import conv3x3


def has(weight: Tensor) -> bool:
    """Whether the kernel convolves with such a weight (O, C, kh, kw): those of many images (``ConvShapes``)."""
    return conv3x3.has(weight)


def pack(weight: Tensor) -> Tensor:
    """A weight (O, C, 3, 3) as (O / 8, 9 * C / 32, 32, 8)."""
    return pair_tiles(weight.permute(0, 2, 3, 1).flatten(1))
