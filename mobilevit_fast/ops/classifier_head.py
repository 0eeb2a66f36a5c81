"""The classifier of MobileViT: 1×1 expansion, activation, mean over the image, linear layer."""

from __future__ import annotations

from torch import Tensor

from mobilevit_fast.kernels.cpu import cpu_kernel
from mobilevit_fast.kernels.cuda import classifier_head as cuda
from mobilevit_fast.kernels.cuda import cuda_kernel
from mobilevit_fast.kernels.reference import classifier_head as reference
from mobilevit_fast.kernels.reference import reference_kernel
from mobilevit_fast.kernels.triton import rules as triton
from mobilevit_fast.kernels.triton import triton_kernel
from mobilevit_fast.kernels.weights import HeadWeights
from mobilevit_fast.ops.checks import check_activation, check_image, check_pixels
from mobilevit_fast.ops.registry import Op

_NAME = "classifier_head"


def _output_shape(x: Tensor, weight: Tensor, sizes: dict[str, int], activation: str) -> tuple[int, ...]:
    check_image(_NAME, x, sizes["channels"])
    check_pixels(_NAME, x)
    check_activation(_NAME, "activation", activation)
    return x.shape[0], sizes["classes"]


OP = Op(
    _NAME,
    HeadWeights,
    "str activation",
    _output_shape,
    [
        cuda_kernel(cuda.takes, cuda.pack),
        triton_kernel(_NAME, triton.classifier_head),
        cpu_kernel(_NAME),
        reference_kernel(reference),
    ],
)


def classifier_head(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    expand_scale: Tensor | None = None,
    activation: str = "silu",
    backend: str = "auto",
) -> Tensor:
    """Logits of a feature map: linear(mean(activation(1×1 convolution(x)))).

    Args:
        x: (N, C, H, W), floating point, any memory layout.
        expand_weight: (E, C, 1, 1).
        expand_scale, expand_bias: (E,) or None, of the expansion, before the activation.
        weight, bias: (K, E) and (K,) or None: the linear layer, K classes.
        activation: a name in ``ACTIVATIONS``, after the expansion.
        backend: "auto" or the kernel to run.

    Weights have ``x``'s type; scales and biases may be float32 as well.

    Returns:
        (N, K), ``x``'s type.

    Raises:
        ValueError: arguments that do not fit together, or a backend that does not take them.
    """
    return OP(backend, x, expand_weight, expand_scale, expand_bias, weight, bias, activation)
