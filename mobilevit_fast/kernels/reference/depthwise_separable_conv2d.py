"""Depthwise separable convolution in plain PyTorch."""

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.kernels.reference.depthwise_conv2d import depthwise_conv2d


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
    geometry = (stride, padding, dilation)
    y = depthwise_conv2d(
        x, depthwise_weight, depthwise_scale, depthwise_bias, *geometry, depthwise_activation
    )  # (N, C, Ho, Wo)
    pointwise = ([1, 1], [0, 0], [1, 1], pointwise_activation)
    return conv2d_bias_act(y, None, pointwise_weight, pointwise_scale, pointwise_bias, *pointwise)  # (N, O, Ho, Wo)
