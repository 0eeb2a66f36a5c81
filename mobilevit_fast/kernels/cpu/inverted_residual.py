"""Inverted residual: the depthwise part by the C++ kernel, the pointwise parts by PyTorch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mobilevit_fast.kernels.cpu.depthwise_separable_conv2d import depthwise_separable_conv2d
from mobilevit_fast.kernels.reference import conv2d_bias_act


def inverted_residual(
    x: Tensor,
    expand_weight: Tensor,
    expand_scale: Tensor | None,
    expand_bias: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_scale: Tensor | None,
    depthwise_bias: Tensor | None,
    project_weight: Tensor,
    project_scale: Tensor | None,
    project_bias: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],
    residual: bool,
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.inverted_residual`."""
    x = x.contiguous(memory_format=torch.channels_last)
    padding = [(k - 1) // 2 * d for k, d in zip(depthwise_weight.shape[2:], dilation, strict=True)]
    pointwise = ([1, 1], [0, 0], [1, 1], activation)
    y = conv2d_bias_act(x, None, expand_weight, expand_scale, expand_bias, *pointwise)  # (N, E, H, W)
    depthwise = (depthwise_weight, depthwise_scale, depthwise_bias)
    project = (project_weight, project_scale, project_bias)
    y = depthwise_separable_conv2d(
        y, *depthwise, *project, stride, padding, dilation, activation, "none"
    )  # (N, O, Ho, Wo)
    return x + y if residual else y
