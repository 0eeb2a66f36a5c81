"""The MobileViT block (arXiv 2110.02178, figure 1b) as three operators."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mobilevit_fast.nn.conv2d_bias_act import bind_dense, require_pointwise
from mobilevit_fast.nn.fused import Bound, Fused, bind
from mobilevit_fast.nn.parameters import affine, stack_layers, statistics_type
from mobilevit_fast.nn.parts import MobileViTBlockParts, Unsupported
from mobilevit_fast.ops.mobilevit_transformer import OP

Value = TypeVar("Value")


class MobileViTBlock(Fused):
    """Local convolution, transformer over the pixels of the patches, fusion convolution over input and result.

    Input (N, C, H, W), any memory layout; result (N, O, H, W) in channels_last.
    """

    kind = "mobilevit_block"

    @classmethod
    def bind(cls, parts: MobileViTBlockParts, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        return {
            "local": bind_dense(parts.local, backend, dtype, 1),
            "transformer": _bind_transformer(parts, backend, dtype),
            "fusion": bind_dense(parts.fusion, backend, dtype, 2),
        }

    @classmethod
    def run(cls, module: Any, bounds: dict[str, Bound], x: Tensor) -> Tensor:
        local = bounds["local"](x)  # (N, C, H, W)
        out = bounds["transformer"](local)  # (N, O, H, W)
        return bounds["fusion"](x, out)  # (N, O, H, W)


def _bind_transformer(parts: MobileViTBlockParts, backend: str, dtype: torch.dtype) -> Bound:
    if not parts.layers:
        raise Unsupported("it has no transformer layers")
    require_pointwise("convolution before the transformer", parts.conv_in)
    require_pointwise("convolution after the transformer", parts.conv_out)
    if parts.conv_in.activation != "none" or parts.conv_in.norm is not None:
        raise Unsupported("its 1x1 convolution in has a normalisation or an activation")
    eps = _common("layer norm epsilons", [n.eps for n in _norms(parts)])
    num_heads = _common("numbers of heads", [layer.num_heads for layer in parts.layers])
    mlp_activation = _common("activations", [layer.activation for layer in parts.layers])
    conv_in = affine(parts.conv_in, dtype)
    out = affine(parts.conv_out, dtype)
    precise = statistics_type(dtype)
    arguments = (
        conv_in.weight,
        conv_in.bias,
        *stack_layers(parts.layers, dtype),
        parts.norm.weight.to(precise),
        parts.norm.bias.to(precise),
        *out,
        num_heads,
        list(parts.patch_size),
        eps,
        mlp_activation,
        parts.conv_out.activation,
    )
    return bind(OP, backend, dtype, 1, *arguments)


def _norms(parts: MobileViTBlockParts) -> list[nn.LayerNorm]:
    norms = [norm for layer in parts.layers for norm in (layer.norm1, layer.norm2)] + [parts.norm]
    for norm in norms:
        if norm.weight is None or norm.bias is None:
            raise Unsupported("one of its layer norms has no weight or no bias")
    return norms


def _common(what: str, values: list[Value]) -> Value:
    if any(value != values[0] for value in values):
        raise Unsupported(f"its layers have different {what}: {sorted(set(map(str, values)))}")
    return values[0]
