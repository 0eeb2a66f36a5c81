"""Rules for this package's own models."""

from typing import Any

from torch import nn

import mobilevit_fast.models as library
from mobilevit_fast.acceleration.libraries import huggingface
from mobilevit_fast.acceleration.libraries.torch_modules import TORCH_CLASSES, conv_parts
from mobilevit_fast.acceleration.parts import ClassifierParts
from mobilevit_fast.acceleration.reading import linear_classifier
from mobilevit_fast.acceleration.regions import ClassifierHead
from mobilevit_fast.acceleration.rules import Rule
from mobilevit_fast.config.activations import QuickGELU
from mobilevit_fast.models.outputs import ImageClassifierOutput

_ACTIVATIONS: dict[type[nn.Module], str] = {QuickGELU: "quick_gelu"}


class ImageClassification(huggingface.ImageClassification):
    """Fused classification model of this package."""

    output_class = ImageClassifierOutput


def _read_head(module: Any) -> ClassifierParts:
    conv = module.conv_1x1_exp
    parts = conv_parts(conv.convolution, conv.normalization, conv.activation, _ACTIVATIONS)
    return ClassifierParts(parts, linear_classifier(module.classifier, "num_labels=0"))


RULES = [
    *huggingface.rules_for(library, ImageClassification, _ACTIVATIONS),
    Rule(
        library.MobileViTClassifierHead,
        ClassifierHead,
        _read_head,
        ("conv_1x1_exp", "dropout", "classifier"),
        TORCH_CLASSES | {library.MobileViTConvLayer, QuickGELU},
    ),
]
MODELS = huggingface.models_of(library)
settings = huggingface.settings
MARKERS = tuple(rule.original for rule in RULES)
