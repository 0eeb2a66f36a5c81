"""Features before the classifier, together with the logits that the same features lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mobilevit_fast.acceleration.fused import compute_input
from mobilevit_fast.acceleration.regions import ClassifierHead, ConvNormAct
from mobilevit_fast.acceleration.regions.classifier_head import HeadOfModel

Embedded = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function of images (N, 3, height, width) that returns their embedding (N, features) and logits (N, classes)."""


class _Parts(NamedTuple):
    """How a library's model is called piece by piece.

    Attributes:
        encoded: images to what the classifier's convolution reads, (N, C, h, w).
        expand: that convolution, which the head of an accelerated model has absorbed.
        whole: images to embedding and logits, by the modules that the library calls.
    """

    encoded: Callable[[Tensor], Tensor]
    expand: nn.Module
    whole: Embedded


def has_embedding(model: nn.Module) -> bool:
    """Whether there is a way to the features of a model."""
    return _parts_of(model) is not None


def embedding_of(model: nn.Module) -> Embedded:
    """Embedding and logits of a classification model that has a way to them.

    Of an accelerated model the logits are those that it gives by itself, and neither they nor the embedding depend on
    how many images there are, as the results of PyTorch's linear layer do.
    """
    parts = _parts_of(model)
    assert parts is not None
    if not isinstance(model, HeadOfModel):
        return parts.whole
    expand = ConvNormAct.from_module(parts.expand, backend=model._mvf.backend)

    def fused(x: Tensor) -> tuple[Tensor, Tensor]:
        bounds = model.bounds_for(x)
        if bounds is None:
            return parts.whole(x)
        encoded = compute_input(parts.encoded(x))  # (N, C, h, w)
        embedding = torch.mean(expand(encoded), dim=(2, 3))  # (N, F, h, w) -> (N, F)
        return embedding, bounds[ClassifierHead.kind](encoded)

    return fused


def _parts_of(model: Any) -> _Parts | None:
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):

        def of_timm(x: Tensor) -> tuple[Tensor, Tensor]:
            embedding = model.forward_head(model.forward_features(x), pre_logits=True)
            return embedding, model.get_classifier()(embedding)

        return _Parts(lambda x: model.stages(model.stem(x)), getattr(model, "final_conv", model), of_timm)
    backbone: Any = getattr(model, "mobilevit", None)
    if not all(isinstance(getattr(model, name, None), nn.Module) for name in ("mobilevit", "classifier")):
        return None

    def of_huggingface(x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = backbone(x, return_dict=True).pooler_output
        return embedding, model.classifier(embedding)

    def encoded(x: Tensor) -> Tensor:
        return backbone.encoder(backbone.conv_stem(x), return_dict=False)[0]

    return _Parts(encoded, backbone.conv_1x1_exp, of_huggingface)
