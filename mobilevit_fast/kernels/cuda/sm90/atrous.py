"""Weights of 1x1 and dilated 3x3 convolutions in the order of ``csrc/cuda/sm90/atrous_sm90_kernel.h``."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.cuda.sm90.conv3x3 import shared_order

OUTPUTS, MAX_RATES = 256, 3
"""Features of an ASPP's branch, and outputs of its projection; rates of a launch, at most (``kAtrousSm90Most``)."""

SLICES = (256, 160, 128, 96, 64)
"""Outputs that there are kernels for (``kAtrousSm90Outputs``)."""


def has(atrous_weight: Tensor, project_weight: Tensor) -> bool:
    """Whether the kernel convolves with weights (rates, features, C, 3, 3) and (outputs, all features, 1, 1)."""
    rates, features, channels = atrous_weight.shape[:3]
    return features == project_weight.shape[0] == OUTPUTS and channels % 16 == 0 and rates <= MAX_RATES


def slices(weight: Tensor, dilation: Sequence[int]) -> list[Tensor]:
    """A single convolution's weight (O, C, kh, kw) in equal parts of its outputs; none where the kernel has no such.

    The kernel has at most four parts, and windows of 1x1, or of 3x3 and the same dilation in both directions.
    """
    outputs, channels, *window = weight.shape
    dilated = window == [3, 3] and dilation[0] == dilation[1] > 1
    if channels % 16 == 0 and (dilated or window == [1, 1]):
        for size in SLICES:
            if outputs % size == 0 and outputs // size <= MAX_RATES + 1:
                return list(weight.split(size))
    return []


def pack(weight: Tensor) -> Tensor:
    """A weight (O, C, kh, kw) as (kh * kw, C / chunk, O, chunk), swizzled."""
    chunk = 32 if weight.shape[1] % 32 == 0 else 16
    return shared_order(weight, chunk).transpose(0, 1)
