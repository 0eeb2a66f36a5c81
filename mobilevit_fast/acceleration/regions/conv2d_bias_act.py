"""Convolution, batch normalisation and activation as one operator."""

from __future__ import annotations

from typing import Any

import torch

from mobilevit_fast.acceleration.arguments import GEOMETRY, check, refuse
from mobilevit_fast.acceleration.bound import Bound, bind
from mobilevit_fast.acceleration.construction import Constructible, constructing, sizes
from mobilevit_fast.acceleration.layouts import Layout, layout_of
from mobilevit_fast.acceleration.parameters import affine
from mobilevit_fast.acceleration.parts import ConvParts, Unsupported
from mobilevit_fast.acceleration.pixels import PixelNormalization
from mobilevit_fast.models.layers import MobileViTConvLayer
from mobilevit_fast.ops.conv2d_bias_act import OP as CONV2D_BIAS_ACT
from mobilevit_fast.ops.depthwise_conv2d import OP as DEPTHWISE_CONV2D


def conv_geometry(parts: ConvParts) -> tuple[list[int], list[int], list[int]]:
    """Stride, padding and dilation of a convolution, in the form of the operators."""
    conv = parts.conv
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise Unsupported(f"its convolution pads by {conv.padding!r} in mode {conv.padding_mode!r}, not with zeros")
    return list(conv.stride), list(conv.padding), list(conv.dilation)


def require_pointwise(name: str, parts: ConvParts) -> None:
    """Raise :class:`Unsupported` unless a convolution is 1×1, of stride 1, unpadded and dense."""
    conv = parts.conv
    if (conv.kernel_size, conv.stride, conv.padding, conv.groups) != ((1, 1), (1, 1), (0, 0), 1):
        raise Unsupported(f"its {name} is not a plain 1x1 convolution")


def bind_dense(parts: ConvParts, backend: str, dtype: torch.dtype, num_inputs: int) -> Bound:
    """A dense convolution over one input, or over the channels of two, bound to a kernel."""
    if parts.conv.groups != 1:
        raise Unsupported(f"its convolution has {parts.conv.groups} groups")
    arguments: list[Any] = [*affine(parts, dtype), *conv_geometry(parts), parts.activation]
    if num_inputs == 1:
        arguments.insert(0, None)
    return bind(CONV2D_BIAS_ACT, backend, dtype, num_inputs, *arguments)


class ConvNormAct(Constructible):
    """Convolution (dense or depthwise), batch normalisation and activation in one kernel.

    Args:
        in_channels, out_channels: of the convolution.
        kernel_size: odd, the same in both directions.
        stride: one number or (vertical, horizontal).
        dilation: the same in both directions. Padding with zeros keeps the size at stride 1.
        groups: 1, or ``in_channels`` for one filter per channel; others run as plain PyTorch.
        bias: of the convolution.
        use_normalization: False leaves the normalisation out.
        activation: a name in ``mobilevit_fast.ops.ACTIVATIONS``.
        backend: "auto" or the kernel to run.
        device, dtype: of the parameters, as for torch's modules.

    Input (N, C, H, W) of the parameters' type, any memory layout; result (N, O, ceil(H / stride), ceil(W / stride)),
    without gradients in channels_last. The children and their names are those of transformers' ``MobileViTConvLayer``.

    Raises:
        ValueError: an argument that does not fit. Inputs that do not are refused by the kernel, in training by PyTorch.
    """

    kind = "conv2d_bias_act"
    plain = MobileViTConvLayer

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int | tuple[int, int] = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        use_normalization: bool = True,
        activation: str = "silu",
        backend: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = type(self).__name__
        check(name, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, dilation=dilation)
        check(name, groups=groups, bias=bias, use_normalization=use_normalization, activation=activation)
        check(name, GEOMETRY, stride=stride)
        if in_channels % groups or out_channels % groups:
            refuse(name, "groups", f"a divisor of {in_channels} and {out_channels} channels", groups)
        with constructing(self, backend, device, dtype):
            super().__init__(
                sizes(),
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                groups=groups,
                bias=bias,
                dilation=dilation,
                use_normalization=use_normalization,
                use_activation=activation != "none" and activation,
            )

    @classmethod
    def bind(cls, parts: ConvParts, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        conv = parts.conv
        if conv.groups > 1 and conv.groups == conv.in_channels == conv.out_channels:
            arguments = (*affine(parts, dtype), *conv_geometry(parts), parts.activation)
            return {cls.kind: bind(DEPTHWISE_CONV2D, backend, dtype, 1, *arguments)}
        return {cls.kind: bind_dense(parts, backend, dtype, 1)}

    @classmethod
    def bind_bytes(
        cls, parts: ConvParts, backend: str, dtype: torch.dtype, pixels: PixelNormalization
    ) -> dict[str, Bound] | None:
        conv, op, rest = parts.conv, CONV2D_BIAS_ACT, (*conv_geometry(parts), parts.activation)
        if conv.groups != 1 or backend not in ("auto", "cuda"):
            return None
        # For their shapes and types.
        image = torch.empty((0, conv.in_channels, 1, 1), dtype=torch.uint8, device="meta")
        channels = conv.in_channels + pixels.subtracts
        weight = torch.empty((conv.out_channels, channels, *conv.kernel_size), dtype=dtype, device="meta")
        if not op.supports("cuda", conv.weight.device, dtype, op.named((image, None, weight, None, None, *rest))).ok:
            return None
        return {cls.kind: bind(op, "cuda", dtype, 1, None, *pixels.folded(affine(parts, dtype)), *rest)}

    @classmethod
    def layout(cls, parts: ConvParts) -> Layout:
        return layout_of(parts)
