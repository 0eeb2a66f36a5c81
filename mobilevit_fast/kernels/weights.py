"""The weights of every operator, declared once: their names and sizes, which may be missing, which may be float32.

Schemas, checks with their messages, packing and kernels read these declarations; a new weight is one line here and what
kernels do with it. ``Tensor | None`` may be missing. Sizes are numbers, names, or a multiple of a name ("3 * width").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from torch import Tensor

HEADS = 4
"""Attention heads of a MobileViT's transformers."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a weight; ``float32``: whether it may be that type where the others are of another."""

    sizes: tuple[int | str, ...]
    float32: bool = False


def factors(*sizes: int | str) -> Shape:
    """Shape of a weight that inputs are multiplied with, in the input's type."""
    return Shape(sizes)


def vector(*sizes: int | str) -> Shape:
    """Shape of scales, biases and norms, which may be float32."""
    return Shape(sizes, float32=True)


class ConvWeights(NamedTuple):
    """Weights of a convolution, activation(scale·conv(x) + bias)."""

    weight: Annotated[Tensor, factors("outputs", "inputs", "kernel height", "kernel width")]
    scale: Annotated[Tensor | None, vector("outputs")]
    bias: Annotated[Tensor | None, vector("outputs")]


class DepthwiseWeights(NamedTuple):
    """Weights of a convolution of every channel by itself."""

    weight: Annotated[Tensor, factors("channels", 1, "kernel height", "kernel width")]
    scale: Annotated[Tensor | None, vector("channels")]
    bias: Annotated[Tensor | None, vector("channels")]


class SeparableWeights(NamedTuple):
    """Weights of a depthwise convolution and the pointwise one behind it."""

    depthwise_weight: Annotated[Tensor, factors("channels", 1, "kernel height", "kernel width")]
    depthwise_scale: Annotated[Tensor | None, vector("channels")]
    depthwise_bias: Annotated[Tensor | None, vector("channels")]
    pointwise_weight: Annotated[Tensor, factors("outputs", "channels", 1, 1)]
    pointwise_scale: Annotated[Tensor | None, vector("outputs")]
    pointwise_bias: Annotated[Tensor | None, vector("outputs")]


class ResidualWeights(NamedTuple):
    """Weights of an inverted residual."""

    expand_weight: Annotated[Tensor, factors("expanded channels", "channels", 1, 1)]
    expand_scale: Annotated[Tensor | None, vector("expanded channels")]
    expand_bias: Annotated[Tensor | None, vector("expanded channels")]
    depthwise_weight: Annotated[Tensor, factors("expanded channels", 1, "kernel height", "kernel width")]
    depthwise_scale: Annotated[Tensor | None, vector("expanded channels")]
    depthwise_bias: Annotated[Tensor | None, vector("expanded channels")]
    project_weight: Annotated[Tensor, factors("outputs", "expanded channels", 1, 1)]
    project_scale: Annotated[Tensor | None, vector("outputs")]
    project_bias: Annotated[Tensor | None, vector("outputs")]

    @property
    def key(self) -> tuple[int, int, int]:
        """Channels, expanded channels and outputs, by which a MobileViT's inverted residuals are told apart."""
        expanded, channels = self.expand_weight.shape[:2]
        return channels, expanded, self.project_weight.shape[0]


class HeadWeights(NamedTuple):
    """Weights of a classifier head: 1×1 expansion and linear layer."""

    expand_weight: Annotated[Tensor, factors("expanded channels", "channels", 1, 1)]
    expand_scale: Annotated[Tensor | None, vector("expanded channels")]
    expand_bias: Annotated[Tensor | None, vector("expanded channels")]
    weight: Annotated[Tensor, factors("classes", "expanded channels")]
    bias: Annotated[Tensor | None, vector("classes")]


class AsppWeights(NamedTuple):
    """Weights of atrous spatial pyramid pooling (ASPP)."""

    pointwise_weight: Annotated[Tensor, factors("features", "channels", 1, 1)]
    pointwise_scale: Annotated[Tensor | None, vector("features")]
    pointwise_bias: Annotated[Tensor | None, vector("features")]
    atrous_weight: Annotated[Tensor, factors("number of rates", "features", "channels", 3, 3)]
    atrous_scale: Annotated[Tensor | None, vector("number of rates", "features")]
    atrous_bias: Annotated[Tensor | None, vector("number of rates", "features")]
    pool_weight: Annotated[Tensor, factors("features", "channels", 1, 1)]
    pool_scale: Annotated[Tensor | None, vector("features")]
    pool_bias: Annotated[Tensor | None, vector("features")]
    project_weight: Annotated[Tensor, factors("outputs", "features together", 1, 1)]
    project_scale: Annotated[Tensor | None, vector("outputs")]
    project_bias: Annotated[Tensor | None, vector("outputs")]


class Norm(NamedTuple):
    """Weight and bias of a layer norm."""

    weight: Tensor
    bias: Tensor


class StackWeights(NamedTuple):
    """Weights of a transformer stack between 1×1 convolutions; layers are stacked along the first dimension."""

    in_weight: Annotated[Tensor, factors("width", "channels", 1, 1)]
    in_bias: Annotated[Tensor | None, vector("width")]
    norm1_weight: Annotated[Tensor, vector("layers", "width")]
    norm1_bias: Annotated[Tensor, vector("layers", "width")]
    qkv_weight: Annotated[Tensor, factors("layers", "3 * width", "width")]
    qkv_bias: Annotated[Tensor | None, vector("layers", "3 * width")]
    proj_weight: Annotated[Tensor, factors("layers", "width", "width")]
    proj_bias: Annotated[Tensor, vector("layers", "width")]
    norm2_weight: Annotated[Tensor, vector("layers", "width")]
    norm2_bias: Annotated[Tensor, vector("layers", "width")]
    fc1_weight: Annotated[Tensor, factors("layers", "hidden units", "width")]
    fc1_bias: Annotated[Tensor, vector("layers", "hidden units")]
    fc2_weight: Annotated[Tensor, factors("layers", "width", "hidden units")]
    fc2_bias: Annotated[Tensor, vector("layers", "width")]
    norm_weight: Annotated[Tensor, vector("width")]
    norm_bias: Annotated[Tensor, vector("width")]
    out_weight: Annotated[Tensor, factors("outputs", "width", 1, 1)]
    out_scale: Annotated[Tensor | None, vector("outputs")]
    out_bias: Annotated[Tensor | None, vector("outputs")]

    @property
    def key(self) -> tuple[int, int, int]:
        """Channels, width and layers, by which a MobileViT's stacks are told apart."""
        width, channels = self.in_weight.shape[:2]
        return channels, width, len(self.fc1_weight)

    def norm(self, name: str, layer: int | slice = slice(None)) -> Norm:
        """The layer norm ``name`` ("norm1", "norm2" or "norm"), of one layer or, (L, D), of several."""
        return Norm(getattr(self, f"{name}_weight")[layer], getattr(self, f"{name}_bias")[layer])

    @property
    def qkv_bias_or_zeros(self) -> Tensor:
        """(L, 3·D)."""
        return self.qkv_weight.new_zeros(self.qkv_weight.shape[:2]) if self.qkv_bias is None else self.qkv_bias

    def is_a_models(self, num_heads: int) -> bool:
        """Whether the stack is one of a MobileViT: four heads, an MLP twice as wide, outputs like channels."""
        channels, width, _ = self.key
        hidden, outputs = self.fc1_weight.shape[1], self.out_weight.shape[0]
        return hidden == 2 * width and outputs == channels and num_heads == HEADS


def part(weights: Any, name: str, layer: int | None = None) -> ConvWeights:
    """The convolution ``name`` of an operator's weights; of a stack of them number ``layer``."""
    tensors = (getattr(weights, f"{name}_{kind}", None) for kind in ConvWeights._fields)
    return ConvWeights(*(t if t is None or layer is None else t[layer] for t in tensors))  # type: ignore[arg-type]
