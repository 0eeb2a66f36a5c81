"""Depthwise convolution with bias and activation (MobileNetV2, arXiv 1801.04381, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.cpu import cpu_kernel
from mobilevit_fast.kernels.cuda import cuda_kernel
from mobilevit_fast.kernels.cuda import depthwise_conv2d as cuda
from mobilevit_fast.kernels.reference import depthwise_conv2d as reference
from mobilevit_fast.kernels.reference import reference_kernel
from mobilevit_fast.kernels.weights import DepthwiseWeights
from mobilevit_fast.ops.checks import check_activation, check_image, convolved_size, pairs
from mobilevit_fast.ops.registry import Op

_NAME = "depthwise_conv2d"


def _output_shape(
    x: Tensor,
    weight: Tensor,
    sizes: dict[str, int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> tuple[int, ...]:
    check_image(_NAME, x, sizes["channels"])
    check_activation(_NAME, "activation", activation)
    kernel_size = (sizes["kernel height"], sizes["kernel width"])
    height, width = convolved_size(_NAME, x, kernel_size, stride, padding, dilation)
    return x.shape[0], sizes["channels"], height, width


OP = Op(
    _NAME,
    DepthwiseWeights,
    "int[2] stride, int[2] padding, int[2] dilation, str activation",
    _output_shape,
    [cuda_kernel(cuda.takes, cuda.pack), cpu_kernel(_NAME), reference_kernel(reference)],
)


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    activation: str = "none",
    backend: str = "auto",
) -> Tensor:
    """Convolve every channel with a filter of its own: activation(scale·conv(x) + bias).

    Args:
        x: (N, C, H, W), floating point, any memory layout; channels_last is taken as it is.
        weight: (C, 1, kh, kw), ``x``'s type.
        scale, bias: (C,), ``x``'s type or float32, or None.
        stride, padding, dilation: in pixels, one number or (vertical, horizontal). Padding is with zeros.
        activation: a name in ``ACTIVATIONS``.
        backend: "auto" or the kernel to run.

    Returns:
        (N, C, Ho, Wo), ``x``'s type, channels_last; Ho = (H + 2·padding − dilation·(kh − 1) − 1) // stride + 1.

    Raises:
        ValueError: arguments that do not fit together, or a backend that does not take them.
    """
    geometry = pairs(_NAME, stride=stride, padding=padding, dilation=dilation)
    return OP(backend, x, weight, scale, bias, *geometry, activation)


def channel_innermost(weight: Tensor) -> Tensor:
    """A depthwise weight (C, 1, kh, kw) of the same values, the channel innermost in memory: (kh, kw, C) as stored."""
    return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
