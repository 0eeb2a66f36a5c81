"""The classifier of a MobileViT as one operator: as a module of its own, or inside the model that owns its parts."""

from __future__ import annotations

from typing import Any

import torch

from mobilevit_fast.acceleration.arguments import check
from mobilevit_fast.acceleration.bound import Bound, bind
from mobilevit_fast.acceleration.construction import Constructible, constructing, sizes
from mobilevit_fast.acceleration.parameters import affine
from mobilevit_fast.acceleration.parts import ClassifierParts
from mobilevit_fast.acceleration.pixels import PixelNormalization
from mobilevit_fast.acceleration.regions.conv2d_bias_act import require_pointwise
from mobilevit_fast.models.classification import MobileViTClassifierHead
from mobilevit_fast.ops.classifier_head import OP


class ClassifierHead(Constructible):
    """1×1 convolution with batch normalisation and activation, mean over the image and linear layer in one kernel.

    Args:
        in_channels: of the features.
        expanded_channels: of the 1×1 convolution.
        num_classes: results of the linear layer.
        activation: after the normalisation, a name in ``mobilevit_fast.ops.ACTIVATIONS``.
        dropout: before the linear layer, in training.
        backend: "auto" or the kernel to run.
        device, dtype: of the parameters, as for torch's modules.

    Input (N, C, H, W) of the parameters' type, any memory layout and size; result (N, num_classes). transformers and
    timm have no such module: there, these parts belong to the whole model, whose weights ``copy_weights_from`` takes.

    Raises:
        ValueError: an argument that does not fit. Inputs that do not are refused by the kernel, in training by PyTorch.
    """

    kind = "classifier_head"
    plain = MobileViTClassifierHead

    def __init__(
        self,
        in_channels: int,
        expanded_channels: int,
        num_classes: int,
        *,
        activation: str = "silu",
        dropout: float = 0.1,
        backend: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = type(self).__name__
        check(name, in_channels=in_channels, expanded_channels=expanded_channels, num_classes=num_classes)
        check(name, activation=activation, dropout=dropout)
        with constructing(self, backend, device, dtype):
            config = sizes(hidden_act=activation, classifier_dropout_prob=dropout)
            super().__init__(config, in_channels, expanded_channels, num_classes)

    @classmethod
    def bind(cls, parts: ClassifierParts, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        require_pointwise("last convolution", parts.expand)
        linear = parts.linear
        arguments = (*affine(parts.expand, dtype), linear.weight.to(dtype), linear.bias, parts.expand.activation)
        return {cls.kind: bind(OP, backend, dtype, 1, *arguments)}


class HeadOfModel(ClassifierHead):
    """A classification model whose last 1×1 convolution, pooling and linear layer run as one kernel.

    The parts lie at two levels of the model, so it is the model that is fused; everything before the head is called as
    the modules it is. How a model calls them differs between libraries: the integrations define ``around``.
    """

    calls_children = True

    @classmethod
    def bind_bytes(
        cls, parts: ClassifierParts, backend: str, dtype: torch.dtype, pixels: PixelNormalization
    ) -> dict[str, Bound] | None:
        return cls.bind(parts, backend, dtype)  # of the model's image it never sees the elements
