"""Rules for this package's own models."""

import mobilevit_fast.models as library
from mobilevit_fast.activations import QuickGELU
from mobilevit_fast.integrations import huggingface
from mobilevit_fast.outputs import ImageClassifierOutput


class ImageClassification(huggingface.ImageClassification):
    """Fused classification model of this package."""

    output_class = ImageClassifierOutput


RULES = huggingface.rules_for(library, ImageClassification, {QuickGELU: "quick_gelu"})
MARKERS = tuple(rule.original for rule in RULES)
