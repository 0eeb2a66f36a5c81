"""Atrous spatial pyramid pooling (arXiv 1706.05587, section 3.3), without a concatenation of its branches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.cuda import aspp as cuda
from mobilevit_fast.kernels.reference import aspp as reference
from mobilevit_fast.ops.checks import MOST_PIXELS, check_activation, check_image, check_parameter, check_rank, refuse
from mobilevit_fast.ops.cuda_backend import cuda_kernel
from mobilevit_fast.ops.packing import panel_floats
from mobilevit_fast.ops.registry import Op, Packing, cpu_kernel, reference_kernel
from mobilevit_fast.ops.triton_backend import triton_kernel

_NAME = "aspp"


def _output_shape(
    x: Tensor,
    pointwise_weight: Tensor,
    pointwise_scale: Tensor | None,
    pointwise_bias: Tensor | None,
    atrous_weight: Tensor,
    atrous_scale: Tensor | None,
    atrous_bias: Tensor | None,
    pool_weight: Tensor,
    pool_scale: Tensor | None,
    pool_bias: Tensor | None,
    project_weight: Tensor,
    project_scale: Tensor | None,
    project_bias: Tensor | None,
    rates: Sequence[int],
    activation: str,
) -> tuple[int, ...]:
    check_rank(_NAME, x, "pointwise weight", pointwise_weight, "(features, channels, 1, 1)")
    check_rank(_NAME, x, "project weight", project_weight, "(outputs, features of all branches, 1, 1)")
    features, channels = pointwise_weight.shape[:2]
    outputs, count = project_weight.shape[0], len(rates)
    if count == 0 or min(rates) < 1 or max(rates) >= MOST_PIXELS:
        refuse(_NAME, "one rate or more, each at least 1 and less than 2^61", list(rates), x)
    check_image(_NAME, x, channels)
    if 0 in x.shape[2:]:
        refuse(_NAME, "an image of at least one pixel", "none", x)
    expected_shapes = {
        "pointwise weight": (pointwise_weight, (features, channels, 1, 1)),
        "pointwise scale": (pointwise_scale, (features,)),
        "pointwise bias": (pointwise_bias, (features,)),
        "atrous weight": (atrous_weight, (count, features, channels, 3, 3)),
        "atrous scale": (atrous_scale, (count, features)),
        "atrous bias": (atrous_bias, (count, features)),
        "pool weight": (pool_weight, (features, channels, 1, 1)),
        "pool scale": (pool_scale, (features,)),
        "pool bias": (pool_bias, (features,)),
        "project weight": (project_weight, (outputs, (count + 2) * features, 1, 1)),
        "project scale": (project_scale, (outputs,)),
        "project bias": (project_bias, (outputs,)),
    }
    for name, (parameter, shape) in expected_shapes.items():
        check_parameter(_NAME, x, name, parameter, shape, float32=not name.endswith("weight"))
    check_activation(_NAME, "activation", activation)
    return x.shape[0], outputs, *x.shape[2:]


_PARAMETERS = (
    *("pointwise_weight", "pointwise_scale", "pointwise_bias", "atrous_weight", "atrous_scale", "atrous_bias"),
    *("pool_weight", "pool_scale", "pool_bias", "project_weight", "project_scale", "project_bias"),
)


def _packed_floats(*parameters: Tensor) -> int:
    by_name = dict(zip(_PARAMETERS, parameters, strict=True))
    branches, pool, project = by_name["atrous_weight"], by_name["pool_weight"], by_name["project_weight"]
    shared = project.shape[1] - len(pool)  # features without those of the means
    convolutions = (by_name["pointwise_weight"], *branches, pool, project[:, :shared], project[:, shared:])
    return sum(map(panel_floats, convolutions))


OP = Op(
    _NAME,
    "Tensor x, Tensor pointwise_weight, Tensor? pointwise_scale, Tensor? pointwise_bias, "
    "Tensor atrous_weight, Tensor? atrous_scale, Tensor? atrous_bias, "
    "Tensor pool_weight, Tensor? pool_scale, Tensor? pool_bias, "
    "Tensor project_weight, Tensor? project_scale, Tensor? project_bias, int[] rates, str activation",
    _output_shape,
    [
        cuda_kernel(cuda.takes, Packing(_PARAMETERS, implementation=cuda.pack)),
        triton_kernel(_NAME),
        cpu_kernel(Packing(_PARAMETERS, _packed_floats)),
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
