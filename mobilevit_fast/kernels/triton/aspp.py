"""Atrous spatial pyramid pooling in R + 5 launches, without a concatenation.

The branches that differ from pixel to pixel are written side by side into one tensor. What the projection makes of the
branch of the image's mean is the same for every pixel of an image: a bias, computed once an image in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilevit_fast.kernels.triton.conv2d_bias_act import convolve, pointwise
from mobilevit_fast.kernels.triton.launch import channels_last, empty_image


def aspp(
    x: Tensor,
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
    rates: Sequence[int],
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.aspp`."""
    x = channels_last(x)
    height, width = x.shape[2:]
    width_of_branch, outputs, count = pointwise_weight.shape[0], project_weight.shape[0], len(rates)

    shared = (count + 1) * width_of_branch
    features = empty_image(x, shared, height, width)
    branches = features.split(width_of_branch, dim=1)
    pointwise(x, pointwise_weight, pointwise_scale, pointwise_bias, activation, branches[0])
    for i, rate in enumerate(rates):
        scale, bias = (None if stack is None else stack[i] for stack in (atrous_scale, atrous_bias))
        window = ((1, 1), (rate, rate), (rate, rate))
        convolve(x, None, atrous_weight[i], scale, bias, *window, activation, branches[i + 1])

    mean = channels_last(x.mean(dim=(2, 3), keepdim=True))  # (N, C, 1, 1)
    pooled = empty_image(x, width_of_branch, 1, 1)
    pointwise(mean, pool_weight, pool_scale, pool_bias, activation, pooled)
    image_bias = empty_image(x, outputs, 1, 1, dtype=torch.float32)
    pointwise(pooled, project_weight[:, shared:], project_scale, project_bias, "none", image_bias)

    y = empty_image(x, outputs, height, width)
    bias = image_bias.flatten(1)  # (N, O)
    return pointwise(features, project_weight[:, :shared], project_scale, bias, activation, y)
