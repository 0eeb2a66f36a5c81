"""Weights of atrous spatial pyramid pooling in the order of ``csrc/cuda/sm90/atrous_sm90_kernel.h``."""

from __future__ import annotations

from torch import Tensor

from mobilevit_fast.kernels.cuda.sm90.conv3x3 import shared_order

OUTPUTS, MAX_RATES = 256, 3
"""Features of a branch, and outputs of the projection; rates of a launch, at most (``kAtrousSm90Most``)."""


def has(atrous_weight: Tensor, project_weight: Tensor) -> bool:
    """Whether the kernel convolves with weights (rates, features, C, 3, 3) and (outputs, all features, 1, 1)."""
    rates, features, channels = atrous_weight.shape[:3]
    return features == project_weight.shape[0] == OUTPUTS and channels % 16 == 0 and rates <= MAX_RATES


def pack(weight: Tensor) -> Tensor:
    """A weight (O, C, kh, kw) as (kh * kw, C / chunk, O, chunk), swizzled."""
    chunk = 32 if weight.shape[1] % 32 == 0 else 16
    return shared_order(weight, chunk).transpose(0, 1)
