"""Parts of a fused region, in neutral terms: the modules to read, whatever library they come from."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Unsupported(Exception):
    """A module cannot become a fused one; the message is the reason, in words for the user."""


class ConvParts(NamedTuple):
    """A convolution, the batch normalisation after it, and the name of the activation after that."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    activation: str


class InvertedResidualParts(NamedTuple):
    """The three convolutions of an inverted residual, and whether the input is added to the result."""

    expand: ConvParts
    depthwise: ConvParts
    project: ConvParts
    residual: bool


class TransformerLayerParts(NamedTuple):
    """A pre-norm transformer layer; ``qkv`` is one joined linear layer or three: query, key, value."""

    norm1: nn.LayerNorm
    qkv: tuple[nn.Linear, ...]
    proj: nn.Linear
    norm2: nn.LayerNorm
    fc1: nn.Linear
    fc2: nn.Linear
    activation: str
    num_heads: int


class MobileViTBlockParts(NamedTuple):
    """A MobileViT block: local convolution, transformer between 1×1 convolutions, fusion with the block's input."""

    local: ConvParts
    conv_in: ConvParts
    layers: tuple[TransformerLayerParts, ...]
    norm: nn.LayerNorm
    conv_out: ConvParts
    fusion: ConvParts
    patch_size: tuple[int, int]


class ClassifierParts(NamedTuple):
    """The last 1×1 convolution and the linear layer behind the pooling."""

    expand: ConvParts
    linear: nn.Linear


class ASPPParts(NamedTuple):
    """The branches of atrous spatial pyramid pooling in the order of their features, and the projection of these."""

    pointwise: ConvParts
    atrous: tuple[ConvParts, ...]
    pool: ConvParts
    project: ConvParts


class AffineConv(NamedTuple):
    """A convolution and its normalisation: scale·conv(x) + bias, scale and bias per output channel."""

    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None
