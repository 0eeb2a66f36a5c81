"""Parameters of atrous spatial pyramid pooling in the order of its kernels (``csrc/cuda/aspp.cpp``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mobilevit_fast.kernels.cuda import conv2d_bias_act
from mobilevit_fast.kernels.cuda.packing import affine, joined
from mobilevit_fast.kernels.cuda.rules import all_of, has_sm90, multiples_of_eight, reaches
from mobilevit_fast.kernels.cuda.sm90 import atrous
from mobilevit_fast.support import Support

MOST_NUMBERS = 8192
"""Channels, and features of a branch: both of an image's mean lie in shared memory (``kAsppVector``)."""


def pack(
    pointwise_weight: Tensor,
    pointwise_scale: Tensor | None,
    pointwise_bias: Tensor | None,
    atrous_weight: Tensor,
    atrous_scale: Tensor | None,
    atrous_bias: Tensor | None,
    pool_weight: Tensor,
    pool_scale: Tensor | None,
    pool_bias: Tensor | None,
    project_weight: Tensor,
    project_scale: Tensor | None,
    project_bias: Tensor | None,
) -> Tensor:
    """Convolutions as their own kernel takes them; the branch of the mean in rows as they come.

    Behind them, for compute capability 9.0, the convolutions' weights once more, as its own kernel takes them.
    """
    own = len(project_weight[0]) - len(pool_weight)  # (R + 1) * K features that the projection sees pixel by pixel
    parts = [conv2d_bias_act.pack_everywhere(pointwise_weight, pointwise_scale, pointwise_bias)]
    for i, weight in enumerate(atrous_weight):
        scale, bias = (None if stack is None else stack[i] for stack in (atrous_scale, atrous_bias))
        parts.append(conv2d_bias_act.pack_everywhere(weight, scale, bias))
    parts.append(conv2d_bias_act.pack_everywhere(project_weight[:, :own], project_scale, None))
    pooled = ((pool_weight, pool_scale, pool_bias), (project_weight[:, own:], project_scale, project_bias))
    for weight, scale, bias in pooled:
        rows = weight.flatten(1)  # (K, C) or (O, K)
        parts += [rows, affine(scale, weight, 1, 1.0), affine(bias, weight, 1, 0.0)]
    if has_sm90(project_weight.device) and atrous.has(atrous_weight, project_weight):
        parts += [atrous.pack(weight) for weight in (pointwise_weight, *atrous_weight, project_weight[:, :own])]
    return joined(parts)


def takes(arguments: dict[str, Any]) -> Support:
    """Whether the kernels take these arguments, of which the image may be missing."""
    weight = arguments.get("pointwise_weight")
    if weight is None:
        return Support(True)
    features, channels = weight.shape[:2]
    if max(features, channels) > MOST_NUMBERS:
        got = f"{channels} and {features}"
        return Support(False, f"expected at most {MOST_NUMBERS} channels, and features of a branch, got {got}")
    windows = (reaches(arguments, (3, 3), (1, 1), (rate, rate), (rate, rate)) for rate in arguments["rates"])
    return all_of(
        multiples_of_eight(input_channels=channels), multiples_of_eight(features_of_a_branch=features), *windows
    )
