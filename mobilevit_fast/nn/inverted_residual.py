"""The inverted residual (MobileNetV2) as one operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.nn.conv2d_bias_act import require_pointwise
from mobilevit_fast.nn.fused import Bound, Fused, bind
from mobilevit_fast.nn.parameters import affine
from mobilevit_fast.nn.parts import InvertedResidualParts, Unsupported
from mobilevit_fast.ops.depthwise_conv2d import channel_innermost
from mobilevit_fast.ops.inverted_residual import OP


class InvertedResidual(Fused):
    """1×1 expansion, k×k depthwise convolution and linear 1×1 projection in one kernel, normalisations included.

    Input (N, C, H, W), any memory layout; result (N, O, Ho, Wo) in channels_last.
    """

    kind = "inverted_residual"

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
        spatial = affine(depthwise, dtype)
        arguments = (
            *affine(expand, dtype),
            channel_innermost(spatial.weight),
            spatial.scale,
            spatial.bias,
            *affine(project, dtype),
            list(conv.stride),
            list(conv.dilation),
            parts.residual,
            expand.activation,
        )
        return {cls.kind: bind(OP, backend, dtype, 1, *arguments)}

    @classmethod
    def run(cls, module: Any, bounds: dict[str, Bound], x: Tensor) -> Tensor:
        return bounds[cls.kind](x)
