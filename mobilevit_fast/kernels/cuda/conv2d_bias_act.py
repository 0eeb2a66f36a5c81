"""Parameters of the dense convolution in the order of its kernels (``csrc/cuda/conv2d_sums.h``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import affine, fragments, padded

STEM_NUMBERS = 64
"""Windows of at most so many numbers, taps by channels, are one sum where channels are no multiple of eight."""


def _neighbours(weight: Tensor) -> Tensor:
    """Output channels (O, ...), rounded up to 16, so that of a product's 16 a lane has four neighbours."""
    outputs = weight.shape[0]
    filled = torch.cat((weight, weight.new_zeros(padded(outputs, 16) - outputs, *weight.shape[1:])))
    return filled.unflatten(0, (-1, 4, 2, 2)).transpose(1, 2).flatten(0, 3)  # (O / 16, member, tile, half, ...)


def _units(weight: Tensor) -> Tensor:
    """A window (O, C, kh, kw) over one input as (C / 16, kh * kw, O / 16, 32, 8)."""
    channels = weight.shape[1]
    filled = F.pad(weight.flatten(2), (0, 0, 0, padded(channels, 16) - channels))  # (O, C, taps)
    columns = _neighbours(filled.unflatten(1, (-1, 16)).transpose(2, 3).flatten(1))  # (O, C / 16 * taps * 16)
    return fragments(columns).unflatten(0, (-1, filled.shape[2]))


def conv2d_bias_act(weight: Tensor, scale: Tensor | None, bias: Tensor | None, channels2: int) -> dict[str, Tensor]:
    """Weight, scale and bias of the operator, whose last ``channels2`` input channels are those of the second input."""
    outputs, channels, kernel_h, kernel_w = weight.shape
    if is_stem(channels - channels2, channels2, kernel_h * kernel_w):
        numbers = weight.permute(0, 2, 3, 1).flatten(1)  # (O, kh * kw * C)
        packed = fragments(_neighbours(numbers))  # (numbers / 16, O / 16, 32, 8)
    else:
        first = channels - channels2
        parts = [weight[:, :first], weight[:, first:]]
        packed = torch.cat([_units(part) for part in parts if part.shape[1] > 0])  # (units, taps, O / 16, 32, 8)
    return {
        "weight": packed.contiguous(),
        "scale": affine(scale, outputs, 16, 1.0),
        "bias": affine(bias, outputs, 16, 0.0),
    }


def is_stem(channels: int, channels2: int, taps: int) -> bool:
    """Whether the kernel for few channels takes it: not a multiple of eight, and a window of few numbers."""
    return channels % 8 != 0 and channels2 == 0 and taps * channels <= STEM_NUMBERS
