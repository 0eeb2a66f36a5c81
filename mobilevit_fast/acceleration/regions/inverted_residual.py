"""The inverted residual (MobileNetV2) as one operator."""

from __future__ import annotations

from typing import Any

import torch

from mobilevit_fast.acceleration.arguments import check
from mobilevit_fast.acceleration.bound import Bound, bind
from mobilevit_fast.acceleration.construction import Constructible, constructing, sizes
from mobilevit_fast.acceleration.layouts import Layout, layout_of
from mobilevit_fast.acceleration.parameters import affine
from mobilevit_fast.acceleration.parts import InvertedResidualParts, Unsupported
from mobilevit_fast.acceleration.regions.conv2d_bias_act import require_pointwise
from mobilevit_fast.models.layers import MobileViTInvertedResidual
from mobilevit_fast.ops.inverted_residual import OP


class InvertedResidual(Constructible):
    """1×1 expansion, k×k depthwise convolution and linear 1×1 projection in one kernel, normalisations included.

    Batch normalisation follows each of the three convolutions, the activation the first two. Where the stride is 1 and
    ``out_channels`` is ``in_channels`` the input is added to the result (arXiv 1801.04381, section 3.3).

    Args:
        in_channels, out_channels: of the whole.
        stride: 1 or 2, of the 3×3 depthwise convolution.
        expand_ratio: channels in the middle over ``in_channels``, rounded to a multiple of 8. There is an expansion
            even where it is 1.
        dilation: of the depthwise convolution.
        activation: a name in ``mobilevit_fast.ops.ACTIVATIONS``.
        backend: "auto" or the kernel to run.
        device, dtype: of the parameters, as for torch's modules.

    Input (N, C, H, W) of the parameters' type, any memory layout; result (N, O, ceil(H / stride), ceil(W / stride)),
    without gradients in channels_last. The children and their names are those of transformers'
    ``MobileViTInvertedResidual``.

    Raises:
        ValueError: an argument that does not fit. Inputs that do not are refused by the kernel, in training by PyTorch.
    """

    kind = "inverted_residual"
    plain = MobileViTInvertedResidual

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        expand_ratio: float = 4.0,
        *,
        dilation: int = 1,
        activation: str = "silu",
        backend: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = type(self).__name__
        check(name, in_channels=in_channels, out_channels=out_channels, stride=stride)
        check(name, expand_ratio=expand_ratio, dilation=dilation, activation=activation)
        with constructing(self, backend, device, dtype):
            config = sizes(expand_ratio=expand_ratio, hidden_act=activation)
            super().__init__(config, in_channels, out_channels, stride, dilation)

    @classmethod
    def bind(cls, parts: InvertedResidualParts, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        expand, depthwise, project = parts.expand, parts.depthwise, parts.project
        for name, pointwise in (("expansion", expand), ("projection", project)):
            require_pointwise(name, pointwise)
        conv = depthwise.conv
        if conv.groups != conv.in_channels or conv.in_channels != conv.out_channels:
            raise Unsupported(f"its spatial convolution has {conv.groups} groups for {conv.in_channels} channels")
        same = tuple((k - 1) // 2 * d for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
        if any(k % 2 == 0 for k in conv.kernel_size) or conv.padding != same or conv.padding_mode != "zeros":
            raise Unsupported("its depthwise convolution is not padded with zeros to the size of its input")
        if depthwise.activation != expand.activation or project.activation != "none":
            activations = ", ".join(p.activation for p in (expand, depthwise, project))
            raise Unsupported(f"expected activations of the pattern a, a, none, got {activations}")
        arguments = (
            *affine(expand, dtype),
            *affine(depthwise, dtype),
            *affine(project, dtype),
            list(conv.stride),
            list(conv.dilation),
            parts.residual,
            expand.activation,
        )
        return {cls.kind: bind(OP, backend, dtype, 1, *arguments)}

    @classmethod
    def layout(cls, parts: InvertedResidualParts) -> Layout:
        return layout_of(parts.expand, parts.depthwise, parts.project)
