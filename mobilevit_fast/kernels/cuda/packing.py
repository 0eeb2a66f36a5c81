"""Weights in the order of the matrix unit: the fragments of ``csrc/cuda/fragments.h``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 32
"""Expanded channels that an inverted residual computes at a time."""


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


def fragments(weight: Tensor, outputs: int = 16) -> Tensor:
    """A linear layer (O, I) as (I / 16, O / 16, 32, 8), both sizes rounded up and filled with zeros.

    Entry (s, q, lane) is what a lane holds of two products m16n8k16: input channels 16·s and on, output channels 16·q
    and on. ``outputs`` is the multiple that O is rounded up to.
    """
    o, i = padded(weight.shape[0], outputs), padded(weight.shape[1], 16)
    filled = F.pad(weight, (0, i - weight.shape[1], 0, o - weight.shape[0]))
    # Output channel 16·q + 8·tile + group, input channel 16·s + 8·register + 2·member + half; lane 4·group + member.
    q_tile_group_s_register_member_half = filled.reshape(o // 16, 2, 8, i // 16, 2, 4, 2)
    return q_tile_group_s_register_member_half.permute(3, 0, 2, 5, 1, 4, 6).reshape(i // 16, o // 16, 32, 8)


def affine(values: Tensor | None, size: int, multiple: int, missing: float) -> Tensor:
    """Scales or biases (size,) as float32, rounded up to a multiple with zeros; ``missing`` where there are none."""
    if values is None:
        values = torch.full((size,), missing)
    return F.pad(values.float(), (0, padded(size, multiple) - size)).contiguous()


def depthwise_conv2d(weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> dict[str, Tensor]:
    """Parameters of the operator as its kernel takes them (``csrc/cuda/depthwise_conv2d_kernel.h``)."""
    channels = weight.shape[0]
    return {
        "weight": weight.flatten(1).t().float().contiguous(),  # (taps, C)
        "scale": affine(scale, channels, 1, 1.0),
        "bias": affine(bias, channels, 1, 0.0),
    }


def inverted_residual(
    expand_weight: Tensor,
    expand_scale: Tensor | None,
    expand_bias: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_scale: Tensor | None,
    depthwise_bias: Tensor | None,
    project_weight: Tensor,
    project_scale: Tensor | None,
    project_bias: Tensor | None,
) -> dict[str, Tensor]:
    """Parameters of the operator as its kernel takes them (``csrc/cuda/inverted_residual_kernel.h``)."""
    expanded = expand_weight.shape[0]
    expand = fragments(expand_weight.flatten(1), CHUNK)  # (C / 16, E / 16, 32, 8)
    rest = (depthwise_weight, depthwise_scale, depthwise_bias, project_weight, project_scale, project_bias)
    return {
        "expand_weight": expand.unflatten(1, (-1, 2)).transpose(0, 1).contiguous(),  # (E / 32, C / 16, 2, 32, 8)
        "expand_scale": affine(expand_scale, expanded, CHUNK, 1.0),
        "expand_bias": affine(expand_bias, expanded, CHUNK, 0.0),
        **depthwise_separable_conv2d(*rest),
    }


def depthwise_separable_conv2d(
    depthwise_weight: Tensor,
    depthwise_scale: Tensor | None,
    depthwise_bias: Tensor | None,
    project_weight: Tensor,
    project_scale: Tensor | None,
    project_bias: Tensor | None,
) -> dict[str, Tensor]:
    """The same without the expansion."""
    expanded, outputs = depthwise_weight.shape[0], project_weight.shape[0]
    taps = depthwise_weight.flatten(1).t().float()  # (9, E)
    project = F.pad(project_weight.flatten(1), (0, padded(expanded, CHUNK) - expanded))
    return {
        "depthwise_weight": F.pad(taps, (0, padded(expanded, CHUNK) - expanded)).contiguous(),
        "depthwise_scale": affine(depthwise_scale, expanded, CHUNK, 1.0),
        "depthwise_bias": affine(depthwise_bias, expanded, CHUNK, 0.0),
        "project_weight": fragments(project).contiguous(),  # (E / 16, O / 16, 32, 8)
        "project_scale": affine(project_scale, outputs, 16, 1.0),
        "project_bias": affine(project_bias, outputs, 16, 0.0),
    }
