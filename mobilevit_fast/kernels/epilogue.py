"""Epilogue of a convolution, before its result reaches memory: scale, bias, activation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": _identity,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
"""Elementwise functions with the default parameters of torch.nn's modules of the same names."""


def epilogue(y: Tensor, scale: Tensor | None, bias: Tensor | None, activation: str) -> Tensor:
    """activation(scale·y + bias) over the channels of ``y`` (N, C, H, W); scale and bias (C,) or None.

    Scale and bias are applied in float32 at least, with one rounding to ``y``'s type, as batch normalisation does it:
    that of zero mean and unit variance is exactly this.
    """
    if scale is not None or bias is not None:
        precise = torch.promote_types(y.dtype, torch.float32)
        ones = torch.ones(y.shape[1], dtype=precise, device=y.device)
        zeros = torch.zeros_like(ones)
        weight = ones if scale is None else scale.to(precise)
        shift = zeros if bias is None else bias.to(precise)
        y = F.batch_norm(y, zeros, ones, weight, shift, eps=1e-30)  # adds nothing to 1, and torch 2.11 refuses 0
    return ACTIVATIONS[activation](y)
