"""The global representation of a MobileViT block (arXiv 2110.02178, section 3.1), from pixels to pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mobilevit_fast.kernels.cpu import cpu_kernel
from mobilevit_fast.kernels.cuda import cuda_kernel
from mobilevit_fast.kernels.cuda import mobilevit_transformer as cuda
from mobilevit_fast.kernels.reference import mobilevit_transformer as reference
from mobilevit_fast.kernels.reference import reference_kernel
from mobilevit_fast.kernels.triton import rules as triton
from mobilevit_fast.kernels.triton import triton_kernel
from mobilevit_fast.kernels.weights import StackWeights
from mobilevit_fast.ops.checks import check_activation, check_geometry, check_image, check_pixels, pair, refuse
from mobilevit_fast.ops.registry import Op

_NAME = "mobilevit_transformer"


def _output_shape(
    x: Tensor,
    weight: Tensor,
    sizes: dict[str, int],
    num_heads: int,
    patch_size: Sequence[int],
    eps: float,
    mlp_activation: str,
    out_activation: str,
) -> tuple[int, ...]:
    width = sizes["width"]
    check_image(_NAME, x, sizes["channels"])
    check_pixels(_NAME, x)
    if num_heads < 1 or width % num_heads:
        refuse(_NAME, f"a number of heads that divides the width {width}", num_heads, x)
    check_geometry(_NAME, x, patch_size=patch_size)
    if not eps >= 0:
        refuse(_NAME, "an epsilon of at least 0", eps, x)
    check_activation(_NAME, "mlp_activation", mlp_activation)
    check_activation(_NAME, "out_activation", out_activation)
    return x.shape[0], sizes["outputs"], x.shape[2], x.shape[3]


OP = Op(
    _NAME,
    StackWeights,
    "int num_heads, int[2] patch_size, float eps, str mlp_activation, str out_activation",
    _output_shape,
    [
        cuda_kernel(cuda.takes, cuda.pack, ("num_heads",)),
        triton_kernel(_NAME, triton.mobilevit_transformer),
        cpu_kernel(_NAME),
        reference_kernel(reference),
    ],
)


def mobilevit_transformer(
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor | None,
    norm1_weight: Tensor,
    norm1_bias: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor,
    norm2_weight: Tensor,
    norm2_bias: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor | None = None,
    *,
    out_scale: Tensor | None = None,
    num_heads: int = 4,
    patch_size: int | Sequence[int] = 2,
    eps: float = 1e-5,
    mlp_activation: str = "silu",
    out_activation: str = "silu",
    backend: str = "auto",
) -> Tensor:
    """1×1 convolution in, L transformer layers over the pixels at one position of every patch, 1×1 convolution out.

    A token is a pixel. The pixels at the same position (i, j) inside all patches form one sequence, and attention stays
    inside it (equation 1 and figure 1b of the paper). Where the image is no multiple of the patch, the projected
    features are resized to the next multiple and back (bilinear, corners not aligned), as the original does.

    Each layer, in pre-norm order: t += proj(attention(norm1(t))); t += fc2(activation(fc1(norm2(t)))).

    Args:
        x: (N, C, H, W), floating point, any memory layout.
        in_weight, in_bias: (D, C, 1, 1) and (D,) or None: into the width D of the transformer.
        norm1_weight, norm1_bias, norm2_weight, norm2_bias: (L, D), layer norms of the L layers.
        qkv_weight, qkv_bias: (L, 3·D, D) and (L, 3·D) or None; rows are query, key, value, each head after head.
        proj_weight, proj_bias: (L, D, D), (L, D).
        fc1_weight, fc1_bias, fc2_weight, fc2_bias: (L, M, D), (L, M), (L, D, M), (L, D).
        norm_weight, norm_bias: (D,), the layer norm after the last layer.
        out_weight: (O, D, 1, 1).
        out_scale, out_bias: (O,) or None, of the convolution out, before its activation.
        num_heads: divides D; attention scores are scaled by 1 / sqrt(D / num_heads).
        patch_size: pixels, one number or (height, width).
        eps: of all layer norms.
        mlp_activation, out_activation: names in ``ACTIVATIONS``.
        backend: "auto" or the kernel to run.

    Weights have ``x``'s type; scales, biases and layer norm parameters may be float32 as well.

    Returns:
        (N, O, H, W), ``x``'s type, channels_last.

    Raises:
        ValueError: arguments that do not fit together, or a backend that does not take them.
    """
    attention = (norm1_weight, norm1_bias, qkv_weight, qkv_bias, proj_weight, proj_bias)
    mlp = (norm2_weight, norm2_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    ends = (norm_weight, norm_bias, out_weight, out_scale, out_bias)
    patch = pair(_NAME, "patch_size", patch_size)
    settings = (num_heads, patch, eps, mlp_activation, out_activation)
    return OP(backend, x, in_weight, in_bias, *attention, *mlp, *ends, *settings)
