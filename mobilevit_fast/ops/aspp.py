"""Atrous spatial pyramid pooling (arXiv 1706.05587, section 3.3), without a concatenation of its branches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.cpu import cpu_kernel
from mobilevit_fast.kernels.cuda import aspp as cuda
from mobilevit_fast.kernels.cuda import cuda_kernel
from mobilevit_fast.kernels.reference import aspp as reference
from mobilevit_fast.kernels.reference import reference_kernel
from mobilevit_fast.kernels.triton import rules as triton
from mobilevit_fast.kernels.triton import triton_kernel
from mobilevit_fast.kernels.weights import AsppWeights
from mobilevit_fast.ops.checks import MAX_PIXELS, check_activation, check_image, check_pixels, refuse
from mobilevit_fast.ops.registry import Op

_NAME = "aspp"


def _output_shape(
    x: Tensor, weight: Tensor, sizes: dict[str, int], rates: Sequence[int], activation: str
) -> tuple[int, ...]:
    features = sizes["features"]
    if not rates or min(rates) < 1 or max(rates) >= MAX_PIXELS:
        refuse(_NAME, "one rate or more, each at least 1 and less than 2^61", list(rates), x)
    check_image(_NAME, x, sizes["channels"])
    check_pixels(_NAME, x)
    check_activation(_NAME, "activation", activation)
    sizes["number of rates"], sizes["features together"] = len(rates), (len(rates) + 2) * features
    return x.shape[0], sizes["outputs"], *x.shape[2:]


OP = Op(
    _NAME,
    AsppWeights,
    "int[] rates, str activation",
    _output_shape,
    [
        cuda_kernel(cuda.takes, cuda.pack),
        triton_kernel(_NAME, triton.aspp),
        cpu_kernel(_NAME),
        reference_kernel(reference),
    ],
)


def aspp(
    x: Tensor,
    pointwise_weight: Tensor,
    atrous_weight: Tensor,
    pool_weight: Tensor,
    project_weight: Tensor,
    *,
    pointwise_scale: Tensor | None = None,
    pointwise_bias: Tensor | None = None,
    atrous_scale: Tensor | None = None,
    atrous_bias: Tensor | None = None,
    pool_scale: Tensor | None = None,
    pool_bias: Tensor | None = None,
    project_scale: Tensor | None = None,
    project_bias: Tensor | None = None,
    rates: Sequence[int] = (6, 12, 18),
    activation: str = "relu",
    backend: str = "auto",
) -> Tensor:
    """Five views of different reach (or R + 2), and a 1×1 convolution over all of them.

    The branches, of K features each, in the order in which ``project_weight`` reads them: a 1×1 convolution; a dilated
    3×3 convolution for each of the R rates; a 1×1 convolution of the mean over the image, the same for every pixel.
    Every convolution, the projection too, is activation(scale·conv + bias).

    Args:
        x: (N, C, H, W), floating point, any memory layout.
        pointwise_weight, pool_weight: (K, C, 1, 1).
        atrous_weight: (R, K, C, 3, 3).
        project_weight: (O, (R + 2)·K, 1, 1).
        pointwise_scale, pointwise_bias, pool_scale, pool_bias: (K,) or None.
        atrous_scale, atrous_bias: (R, K) or None.
        project_scale, project_bias: (O,) or None.
        rates: R numbers, dilation of a 3×3 convolution and its padding with zeros, in pixels.
        activation: a name in ``ACTIVATIONS``, of all convolutions.
        backend: "auto" or the kernel to run.

    Weights have ``x``'s type; scales and biases may be float32 as well.

    Returns:
        (N, O, H, W), ``x``'s type, channels_last.

    Raises:
        ValueError: arguments that do not fit together, or a backend that does not take them.
    """
    branches = (pointwise_weight, pointwise_scale, pointwise_bias, atrous_weight, atrous_scale, atrous_bias)
    ends = (pool_weight, pool_scale, pool_bias, project_weight, project_scale, project_bias)
    return OP(backend, x, *branches, *ends, list(rates), activation)
