"""Inverted residual in plain PyTorch."""

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.kernels.reference.depthwise_conv2d import depthwise_conv2d
from mobilevit_fast.kernels.weights import ResidualWeights, part


def inverted_residual(
    x: Tensor,
    w: ResidualWeights,
    stride: Sequence[int],
    dilation: Sequence[int],
    residual: bool,
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.inverted_residual`."""
    pointwise = ([1, 1], [0, 0], [1, 1])
    padding = [(k - 1) // 2 * d for k, d in zip(w.depthwise_weight.shape[2:], dilation, strict=True)]
    y = conv2d_bias_act(x, None, part(w, "expand"), *pointwise, activation)  # (N, E, H, W)
    y = depthwise_conv2d(y, part(w, "depthwise"), stride, padding, dilation, activation)  # (N, E, Ho, Wo)
    y = conv2d_bias_act(y, None, part(w, "project"), *pointwise, "none")  # (N, O, Ho, Wo)
    return x + y if residual else y
