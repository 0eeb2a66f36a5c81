"""Depthwise separable convolution in plain PyTorch."""

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.kernels.reference.depthwise_conv2d import depthwise_conv2d
from mobilevit_fast.kernels.weights import SeparableWeights, part


def depthwise_separable_conv2d(
    x: Tensor,
    w: SeparableWeights,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    depthwise_activation: str,
    pointwise_activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.depthwise_separable_conv2d`."""
    y = depthwise_conv2d(x, part(w, "depthwise"), stride, padding, dilation, depthwise_activation)  # (N, C, Ho, Wo)
    pointwise = ([1, 1], [0, 0], [1, 1], pointwise_activation)
    return conv2d_bias_act(y, None, part(w, "pointwise"), *pointwise)  # (N, O, Ho, Wo)
