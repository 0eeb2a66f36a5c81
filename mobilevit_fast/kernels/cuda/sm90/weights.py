"""The parameters that the packings of an operator's kernels for compute capability 9.0 have in common."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

HEADS = 4


class StackWeights(NamedTuple):
    """Those of ``mobilevit_transformer``, by the names of its schema; biases of query, key and value are there."""

    in_weight: Tensor
    in_bias: Tensor | None
    norm1_weight: Tensor
    norm1_bias: Tensor
    qkv_weight: Tensor
    qkv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    out_weight: Tensor
    out_scale: Tensor | None
    out_bias: Tensor | None

    @property
    def key(self) -> tuple[int, int, int]:
        """Channels, features and layers, by which a MobileViT's stacks are told apart."""
        features, channels = self.in_weight.shape[:2]
        return channels, features, len(self.fc1_weight)

    def is_a_models(self, num_heads: int) -> bool:
        """Whether the stack is one of a MobileViT: four heads, an MLP twice as wide, outputs like channels."""
        channels, features, _ = self.key
        hidden, outputs = self.fc1_weight.shape[1], self.out_weight.shape[0]
        return hidden == 2 * features and outputs == channels and num_heads == HEADS


class ResidualWeights(NamedTuple):
    """Those of ``inverted_residual``, by the names of its schema."""

    expand_weight: Tensor
    expand_scale: Tensor | None
    expand_bias: Tensor | None
    depthwise_weight: Tensor
    depthwise_scale: Tensor | None
    depthwise_bias: Tensor | None
    project_weight: Tensor
    project_scale: Tensor | None
    project_bias: Tensor | None
