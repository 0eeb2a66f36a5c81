"""Rules for transformers' MobileViT."""

import transformers.activations as activations
import transformers.models.mobilevit.modeling_mobilevit as library
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from mobilevit_fast.acceleration.libraries import huggingface


class ImageClassification(huggingface.ImageClassification):
    """Fused classification model of transformers."""

    output_class = ImageClassifierOutputWithNoAttention


_ACTIVATIONS: dict[type[nn.Module], str] = {
    activations.SiLUActivation: "silu",
    activations.MishActivation: "mish",
    activations.NewGELUActivation: "gelu_tanh",
    activations.QuickGELUActivation: "quick_gelu",
    activations.LinearActivation: "none",
}

RULES = huggingface.rules_for(library, ImageClassification, _ACTIVATIONS)
MODELS = huggingface.models_of(library)
settings = huggingface.settings
MARKERS = tuple(rule.original for rule in RULES)
