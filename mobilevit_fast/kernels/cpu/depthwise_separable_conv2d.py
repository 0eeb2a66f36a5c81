"""Depthwise separable convolution: the depthwise part by the C++ kernel, the pointwise part by PyTorch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilevit_fast.kernels.reference import conv2d_bias_act


def depthwise_separable_conv2d(
    x: Tensor,
    depthwise_weight: Tensor,
    depthwise_scale: Tensor | None,
    depthwise_bias: Tensor | None,
    pointwise_weight: Tensor,
    pointwise_scale: Tensor | None,
    pointwise_bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    depthwise_activation: str,
    pointwise_activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.depthwise_separable_conv2d`."""
    depthwise = torch.ops.mobilevit_fast.depthwise_conv2d.cpu
    y = depthwise(x, depthwise_weight, depthwise_scale, depthwise_bias, stride, padding, dilation, depthwise_activation)
    pointwise = ([1, 1], [0, 0], [1, 1], pointwise_activation)
    return conv2d_bias_act(y, None, pointwise_weight, pointwise_scale, pointwise_bias, *pointwise)  # (N, O, Ho, Wo)
