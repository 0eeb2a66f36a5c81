"""Atrous spatial pyramid pooling in plain PyTorch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.kernels.weights import AsppWeights, part


def aspp(
    x: Tensor,
    w: AsppWeights,
    rates: Sequence[int],
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.aspp`."""
    pointwise = ([1, 1], [0, 0], [1, 1], activation)
    pooled = x.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
    pooled = conv2d_bias_act(pooled, None, part(w, "pool"), *pointwise)  # (N, K, 1, 1)
    branches = [conv2d_bias_act(x, None, part(w, "pointwise"), *pointwise)]
    for i, rate in enumerate(rates):
        window = ([1, 1], [rate, rate], [rate, rate], activation)
        branches.append(conv2d_bias_act(x, None, part(w, "atrous", i), *window))  # (N, K, H, W)
    features = torch.cat((*branches, pooled.expand_as(branches[0])), dim=1)  # (N, (R + 2)·K, H, W)
    return conv2d_bias_act(features, None, part(w, "project"), *pointwise)  # (N, O, H, W)
