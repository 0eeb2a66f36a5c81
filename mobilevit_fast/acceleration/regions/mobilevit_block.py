"""The MobileViT block (arXiv 2110.02178, figure 1b) as three operators."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mobilevit_fast.acceleration.arguments import check, refuse
from mobilevit_fast.acceleration.bound import Bound, bind
from mobilevit_fast.acceleration.construction import Constructible, constructing, sizes
from mobilevit_fast.acceleration.layouts import Layout, is_channels_last
from mobilevit_fast.acceleration.parameters import affine, stack_layers, statistics_type
from mobilevit_fast.acceleration.parts import MobileViTBlockParts, Unsupported
from mobilevit_fast.acceleration.regions.conv2d_bias_act import bind_dense, require_pointwise
from mobilevit_fast.acceleration.regions.inverted_residual import InvertedResidual
from mobilevit_fast.models.block import MobileViTLayer
from mobilevit_fast.ops.mobilevit_transformer import OP

Value = TypeVar("Value")


class MobileViTBlock(Constructible):
    """Local convolution, transformer over the pixels of the patches, fusion convolution over input and result.

    Three kernels: k×k convolution; 1×1 convolution, all transformer layers and their last normalisation, 1×1
    convolution; k×k convolution over the channels of input and result (arXiv 2110.02178, figure 1b).

    Args:
        in_channels: of the input.
        hidden_size: the transformer's width, a multiple of ``num_heads``.
        num_layers: of the transformer.
        num_heads: of the attention.
        out_channels: of the result; None, and without a stride the only choice: ``in_channels``.
        stride: 2 puts an inverted residual first, a region and kernel of its own, as transformers' ``MobileViTLayer``
            has it; 1 leaves it out, as timm's ``MobileVitBlock`` does.
        dilation: with a value above 1 that inverted residual keeps the resolution and has half this dilation.
        expand_ratio: of that inverted residual.
        mlp_ratio: width of the transformer's MLP over ``hidden_size``.
        patch_size: pixels, one number or (height, width).
        kernel_size: of the convolutions that are not 1×1, odd.
        activation: of convolutions and MLP, a name in ``mobilevit_fast.ops.ACTIVATIONS``.
        qkv_bias: whether query, key and value have a bias.
        dropout, attention_dropout: after the linear layers and on the attention's probabilities, in training.
        layer_norm_eps: epsilon of the layer norms.
        backend: "auto" or the kernel to run.
        device, dtype: of the parameters, as for torch's modules.

    Input (N, C, H, W) of the parameters' type, any memory layout and size; result (N, O, H, W), with a stride of 2
    (N, O, ceil(H / 2), ceil(W / 2)), without gradients in channels_last. The children and their names are those of
    transformers' ``MobileViTLayer``.

    Raises:
        ValueError: an argument that does not fit. Inputs that do not are refused by the kernel, in training by PyTorch.
    """

    kind = "mobilevit_block"
    plain = MobileViTLayer
    downsampling_layer: nn.Module | None

    def __init__(
        self,
        in_channels: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int = 4,
        *,
        out_channels: int | None = None,
        stride: int = 1,
        dilation: int = 1,
        expand_ratio: float = 4.0,
        mlp_ratio: float = 2.0,
        patch_size: int | tuple[int, int] = 2,
        kernel_size: int = 3,
        activation: str = "silu",
        qkv_bias: bool = True,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        layer_norm_eps: float = 1e-5,
        backend: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = type(self).__name__
        out_channels = in_channels if out_channels is None else out_channels
        check(name, in_channels=in_channels, hidden_size=hidden_size, num_layers=num_layers, num_heads=num_heads)
        check(name, out_channels=out_channels, stride=stride, dilation=dilation, expand_ratio=expand_ratio)
        check(name, mlp_ratio=mlp_ratio, patch_size=patch_size, kernel_size=kernel_size, activation=activation)
        check(name, qkv_bias=qkv_bias, dropout=dropout, attention_dropout=attention_dropout)
        check(name, layer_norm_eps=layer_norm_eps)
        if stride == 1 and out_channels != in_channels:
            refuse(name, "out_channels", f"in_channels={in_channels} with stride=1", out_channels)
        if stride == 1 and dilation != 1:
            refuse(name, "dilation", "1 with stride=1", dilation)
        if hidden_size % num_heads:
            refuse(name, "hidden_size", f"a multiple of num_heads={num_heads}", hidden_size)
        if hidden_size * mlp_ratio < 1:
            refuse(name, "mlp_ratio", f"at least 1/{hidden_size}, one unit in the MLP", mlp_ratio)
        config = sizes(
            num_attention_heads=num_heads,
            mlp_ratio=mlp_ratio,
            expand_ratio=expand_ratio,
            patch_size=patch_size,
            conv_kernel_size=kernel_size,
            hidden_act=activation,
            qkv_bias=qkv_bias,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=attention_dropout,
            layer_norm_eps=layer_norm_eps,
        )
        with constructing(self, backend, device, dtype):
            super().__init__(config, in_channels, out_channels, stride, hidden_size, num_layers, dilation)
        if self.downsampling_layer is not None:
            InvertedResidual._adopt(self.downsampling_layer, backend)

    def _counterparts(self, module: nn.Module) -> list[tuple[str, nn.Module, nn.Module]]:
        own, other = (getattr(block, "downsampling_layer", None) for block in (self, module))
        if own is None and other is None:
            return super()._counterparts(module)
        if own is None or other is None:
            which = ("without", "with") if own is None else ("with", "without")
            raise ValueError(f"expected a block {which[0]} an inverted residual before it, got one {which[1]}")
        return [*super()._counterparts(module), ("downsampling_layer", own, other)]

    @classmethod
    def bind(cls, parts: MobileViTBlockParts, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        return {
            "local": bind_dense(parts.local, backend, dtype, 1),
            "transformer": _bind_transformer(parts, backend, dtype),
            "fusion": bind_dense(parts.fusion, backend, dtype, 2),
        }

    @classmethod
    def layout(cls, parts: MobileViTBlockParts) -> Layout:
        # Folding gives contiguous images, and a concatenation keeps the layout that both of its inputs have.
        always, keeps = (is_channels_last(convolution.conv.weight) for convolution in (parts.fusion, parts.conv_out))
        return Layout(always, keeps, parts.fusion.norm is not None)

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
