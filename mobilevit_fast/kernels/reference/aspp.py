"""Atrous spatial pyramid pooling in plain PyTorch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act


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
    pointwise = ([1, 1], [0, 0], [1, 1], activation)
    pooled = x.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
    pooled = conv2d_bias_act(pooled, None, pool_weight, pool_scale, pool_bias, *pointwise)  # (N, K, 1, 1)
    branches = [conv2d_bias_act(x, None, pointwise_weight, pointwise_scale, pointwise_bias, *pointwise)]
    for i, rate in enumerate(rates):
        scale, bias = (None if stack is None else stack[i] for stack in (atrous_scale, atrous_bias))
        window = ([1, 1], [rate, rate], [rate, rate], activation)
        branches.append(conv2d_bias_act(x, None, atrous_weight[i], scale, bias, *window))  # (N, K, H, W)
    features = torch.cat((*branches, pooled.expand_as(branches[0])), dim=1)  # (N, (R + 2)·K, H, W)
    return conv2d_bias_act(features, None, project_weight, project_scale, project_bias, *pointwise)  # (N, O, H, W)
