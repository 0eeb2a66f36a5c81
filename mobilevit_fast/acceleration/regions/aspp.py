"""Atrous spatial pyramid pooling, the body of DeepLabV3's head (arXiv 1706.05587), as one operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.acceleration.arguments import check
from mobilevit_fast.acceleration.bound import Bound, bind
from mobilevit_fast.acceleration.construction import Constructible, constructing, sizes
from mobilevit_fast.acceleration.layouts import Layout, layout_of
from mobilevit_fast.acceleration.parameters import affine, inputs_innermost
from mobilevit_fast.acceleration.parts import ASPPParts, ConvParts, Unsupported
from mobilevit_fast.acceleration.regions.conv2d_bias_act import conv_geometry, require_pointwise
from mobilevit_fast.models.segmentation import MobileViTASPP
from mobilevit_fast.ops.aspp import OP


class ASPP(Constructible):
    """All branches and their projection in one kernel; no tensor holds the features of the branches side by side.

    A 1×1 convolution, a dilated 3×3 one for each rate, the mean over the image through another 1×1, and a 1×1 over the
    channels of all of them; batch normalisation and ReLU after each (arXiv 1706.05587, section 3.3).

    Args:
        in_channels: of the features.
        out_channels: of every branch and of the result.
        atrous_rates: the dilations, one or more.
        dropout: after the projection, in training.
        backend: "auto" or the kernel to run.
        device, dtype: of the parameters, as for torch's modules.

    Input (N, C, H, W) of the parameters' type, any memory layout; result (N, O, H, W), without gradients in
    channels_last. The children and their names are those of transformers' ``MobileViTASPP``.

    Raises:
        ValueError: an argument that does not fit. Inputs that do not are refused by the kernel, in training by PyTorch.
    """

    kind = "aspp"
    plain = MobileViTASPP

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        atrous_rates: Sequence[int] = (6, 12, 18),
        *,
        dropout: float = 0.1,
        backend: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = type(self).__name__
        check(name, in_channels=in_channels, out_channels=out_channels, atrous_rates=atrous_rates, dropout=dropout)
        with constructing(self, backend, device, dtype):
            fields = {"aspp_out_channels": out_channels, "atrous_rates": atrous_rates, "aspp_dropout_prob": dropout}
            super().__init__(sizes(neck_hidden_sizes=6 * [in_channels], **fields))

    @classmethod
    def bind(cls, parts: ASPPParts, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        require_pointwise("first branch", parts.pointwise)
        require_pointwise("pooling convolution", parts.pool)
        require_pointwise("projection", parts.project)
        activations = sorted({conv.activation for conv in _convolutions(parts)})
        if len(activations) > 1:
            raise Unsupported(f"its convolutions have different activations: {', '.join(activations)}")
        _check_channels(parts)
        rates = [_rate(conv) for conv in parts.atrous]
        atrous = [affine(conv, dtype) for conv in parts.atrous]
        arguments = (
            *affine(parts.pointwise, dtype),
            inputs_innermost(torch.stack([conv.weight for conv in atrous])),
            _stacked("normalisation", [conv.scale for conv in atrous]),
            _stacked("bias", [conv.bias for conv in atrous]),
            *affine(parts.pool, dtype),
            *affine(parts.project, dtype),
        )
        return {cls.kind: bind(OP, backend, dtype, 1, *arguments, rates, activations[0])}

    @classmethod
    def layout(cls, parts: ASPPParts) -> Layout:
        # The pooled branch is resized to contiguous images, and so is the concatenation of all.
        return layout_of(*_convolutions(parts))._replace(keeps=False)


def _convolutions(parts: ASPPParts) -> tuple[ConvParts, ...]:
    return parts.pointwise, *parts.atrous, parts.pool, parts.project


def _check_channels(parts: ASPPParts) -> None:
    branches = _convolutions(parts)[:-1]
    sizes = {(branch.conv.in_channels, branch.conv.out_channels) for branch in branches}
    features = sum(branch.conv.out_channels for branch in branches)
    if len(sizes) > 1 or parts.project.conv.in_channels != features:
        raise Unsupported(f"its {len(branches)} branches and its projection have channels that do not fit together")


def _rate(parts: ConvParts) -> int:
    """The dilation of an atrous convolution whose result has the size of its input."""
    stride, padding, dilation = conv_geometry(parts)
    rate = dilation[0]
    if parts.conv.groups != 1 or parts.conv.kernel_size != (3, 3) or stride != [1, 1]:
        raise Unsupported("one of its atrous convolutions is not a dense 3x3 convolution of stride 1")
    if dilation != [rate, rate] or padding != [rate, rate]:
        raise Unsupported(f"one of its atrous convolutions has dilation {dilation} and padding {padding}")
    return rate


def _stacked(what: str, tensors: list[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    if present and len(present) < len(tensors):
        raise Unsupported(f"some of its atrous convolutions have a {what} and others have none")
    return torch.stack(present) if present else None
