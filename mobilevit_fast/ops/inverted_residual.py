"""The inverted residual of MobileNetV2 (arXiv 1801.04381, table 1), normalisations as scales and biases."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.cpu import cpu_kernel
from mobilevit_fast.kernels.cuda import cuda_kernel
from mobilevit_fast.kernels.cuda import inverted_residual as cuda
from mobilevit_fast.kernels.reference import inverted_residual as reference
from mobilevit_fast.kernels.reference import reference_kernel
from mobilevit_fast.kernels.triton import rules as triton
from mobilevit_fast.kernels.triton import triton_kernel
from mobilevit_fast.kernels.weights import ResidualWeights
from mobilevit_fast.ops.checks import (
    check_activation,
    check_geometry,
    check_image,
    convolved_size,
    pairs,
    refuse,
)
from mobilevit_fast.ops.registry import Op

_NAME = "inverted_residual"


def _output_shape(
    x: Tensor,
    weight: Tensor,
    sizes: dict[str, int],
    stride: Sequence[int],
    dilation: Sequence[int],
    residual: bool,
    activation: str,
) -> tuple[int, ...]:
    check_geometry(_NAME, x, stride=stride, dilation=dilation)
    kernel_size = (sizes["kernel height"], sizes["kernel width"])
    if any(size % 2 == 0 for size in kernel_size):
        refuse(_NAME, "a depthwise window of odd size", f"{kernel_size[0]}x{kernel_size[1]}", x)
    channels, outputs = sizes["channels"], sizes["outputs"]
    check_image(_NAME, x, channels)
    check_activation(_NAME, "activation", activation)
    padding = [(size - 1) // 2 * step for size, step in zip(kernel_size, dilation, strict=True)]
    height, width = convolved_size(_NAME, x, kernel_size, stride, padding, dilation)
    if residual and (outputs != channels or max(stride) > 1):
        refuse(_NAME, "stride 1 and as many outputs as inputs for a residual", f"{outputs}, stride {stride}", x)
    return x.shape[0], outputs, height, width


OP = Op(
    _NAME,
    ResidualWeights,
    "int[2] stride, int[2] dilation, bool residual, str activation",
    _output_shape,
    [
        cuda_kernel(cuda.takes, cuda.pack),
        triton_kernel(_NAME, triton.inverted_residual),
        cpu_kernel(_NAME),
        reference_kernel(reference),
    ],
)


def inverted_residual(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    project_weight: Tensor,
    project_bias: Tensor | None,
    *,
    expand_scale: Tensor | None = None,
    depthwise_scale: Tensor | None = None,
    project_scale: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    residual: bool = False,
    activation: str = "silu",
    backend: str = "auto",
) -> Tensor:
    """1×1 expansion, activation, k×k depthwise convolution, activation, linear 1×1 projection, residual sum.

    Args:
        x: (N, C, H, W), floating point, any memory layout.
        expand_weight: (E, C, 1, 1), ``x``'s type.
        depthwise_weight: (E, 1, kh, kw), odd window; zero padding keeps the size at stride 1.
        project_weight: (O, E, 1, 1).
        expand_bias, depthwise_bias, project_bias: (E,), (E,), (O,), ``x``'s type or float32, or None.
        expand_scale, depthwise_scale, project_scale: what the three convolutions are multiplied with before the bias
            is added; same shapes and types, or None.
        stride, dilation: of the depthwise convolution, in pixels, one number or (vertical, horizontal).
        residual: add ``x`` to the result; needs stride 1 and O = C.
        activation: a name in ``ACTIVATIONS``, after the expansion and after the depthwise convolution.
        backend: "auto" or the kernel to run.

    Returns:
        (N, O, ceil(H / stride), ceil(W / stride)), ``x``'s type, channels_last.

    Raises:
        ValueError: arguments that do not fit together, or a backend that does not take them.
    """
    geometry = pairs(_NAME, stride=stride, dilation=dilation)
    expand = (expand_weight, expand_scale, expand_bias)
    depthwise = (depthwise_weight, depthwise_scale, depthwise_bias)
    project = (project_weight, project_scale, project_bias)
    return OP(backend, x, *expand, *depthwise, *project, *geometry, residual, activation)
