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
from mobilevit_fast.kernels.weights import AsppWeights, part


def aspp(
    x: Tensor,
    w: AsppWeights,
    rates: Sequence[int],
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.aspp`."""
    x = channels_last(x)
    height, width = x.shape[2:]
    width_of_branch, outputs, count = w.pointwise_weight.shape[0], w.project_weight.shape[0], len(rates)

    shared = (count + 1) * width_of_branch
    features = empty_image(x, shared, height, width)
    branches = features.split(width_of_branch, dim=1)
    pointwise(x, *part(w, "pointwise"), activation, branches[0])
    for i, rate in enumerate(rates):
        window = ((1, 1), (rate, rate), (rate, rate))
        convolve(x, None, *part(w, "atrous", i), *window, activation, branches[i + 1])

    mean = channels_last(x.mean(dim=(2, 3), keepdim=True))  # (N, C, 1, 1)
    pooled = empty_image(x, width_of_branch, 1, 1)
    pointwise(mean, *part(w, "pool"), activation, pooled)
    image_bias = empty_image(x, outputs, 1, 1, dtype=torch.float32)
    pointwise(pooled, w.project_weight[:, shared:], w.project_scale, w.project_bias, "none", image_bias)

    y = empty_image(x, outputs, height, width)
    bias = image_bias.flatten(1)  # (N, O)
    return pointwise(features, w.project_weight[:, :shared], w.project_scale, bias, activation, y)
