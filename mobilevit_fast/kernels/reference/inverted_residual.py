"""Inverted residual in plain PyTorch."""

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.kernels.reference.depthwise_conv2d import depthwise_conv2d


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
    pointwise = ([1, 1], [0, 0], [1, 1])
    padding = [(k - 1) // 2 * d for k, d in zip(depthwise_weight.shape[2:], dilation, strict=True)]
    y = conv2d_bias_act(x, None, expand_weight, expand_scale, expand_bias, *pointwise, activation)  # (N, E, H, W)
    y = depthwise_conv2d(
        y, depthwise_weight, depthwise_scale, depthwise_bias, stride, padding, dilation, activation
    )  # (N, E, Ho, Wo)
    y = conv2d_bias_act(y, None, project_weight, project_scale, project_bias, *pointwise, "none")  # (N, O, Ho, Wo)
    return x + y if residual else y
