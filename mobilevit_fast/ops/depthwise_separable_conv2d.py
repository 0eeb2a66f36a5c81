"""Depthwise convolution followed by a pointwise one (MobileNet, arXiv 1704.04861, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.cpu import cpu_kernel
from mobilevit_fast.kernels.cuda import cuda_kernel
from mobilevit_fast.kernels.cuda import inverted_residual as cuda
from mobilevit_fast.kernels.reference import depthwise_separable_conv2d as reference
from mobilevit_fast.kernels.reference import reference_kernel
from mobilevit_fast.kernels.weights import SeparableWeights
from mobilevit_fast.ops.checks import check_activation, check_image, convolved_size, pairs
from mobilevit_fast.ops.registry import Op

_NAME = "depthwise_separable_conv2d"


def _output_shape(
    x: Tensor,
    weight: Tensor,
    sizes: dict[str, int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    depthwise_activation: str,
    pointwise_activation: str,
) -> tuple[int, ...]:
    check_image(_NAME, x, sizes["channels"])
    check_activation(_NAME, "depthwise_activation", depthwise_activation)
    check_activation(_NAME, "pointwise_activation", pointwise_activation)
    kernel_size = (sizes["kernel height"], sizes["kernel width"])
    height, width = convolved_size(_NAME, x, kernel_size, stride, padding, dilation)
    return x.shape[0], sizes["outputs"], height, width


OP = Op(
    _NAME,
    SeparableWeights,
    "int[2] stride, int[2] padding, int[2] dilation, str depthwise_activation, str pointwise_activation",
    _output_shape,
    [
        cuda_kernel(cuda.takes_separable, cuda.pack_separable),
        cpu_kernel(_NAME),
        reference_kernel(reference),
    ],
)


def depthwise_separable_conv2d(
    x: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_weight: Tensor,
    pointwise_bias: Tensor | None = None,
    *,
    depthwise_scale: Tensor | None = None,
    pointwise_scale: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    depthwise_activation: str = "none",
    pointwise_activation: str = "none",
    backend: str = "auto",
) -> Tensor:
    """A k×k filter per channel, then a 1×1 convolution across channels, each with scale, bias and activation.

    Args:
        x: (N, C, H, W), floating point, any memory layout.
        depthwise_weight: (C, 1, kh, kw), ``x``'s type.
        depthwise_scale, depthwise_bias: (C,), ``x``'s type or float32, or None.
        pointwise_weight: (O, C, 1, 1), ``x``'s type.
        pointwise_scale, pointwise_bias: (O,), ``x``'s type or float32, or None.
        stride, padding, dilation: of the depthwise part, in pixels, one number or (vertical, horizontal).
        depthwise_activation, pointwise_activation: names in ``ACTIVATIONS``.
        backend: "auto" or the kernel to run.

    Returns:
        (N, O, Ho, Wo), ``x``'s type, channels_last.

    Raises:
        ValueError: arguments that do not fit together, or a backend that does not take them.
    """
    geometry = pairs(_NAME, stride=stride, padding=padding, dilation=dilation)
    depthwise = (depthwise_weight, depthwise_scale, depthwise_bias)
    pointwise = (pointwise_weight, pointwise_scale, pointwise_bias)
    return OP(backend, x, *depthwise, *pointwise, *geometry, depthwise_activation, pointwise_activation)
