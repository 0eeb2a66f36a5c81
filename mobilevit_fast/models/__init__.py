"""MobileViT in plain PyTorch: the reference that everything fast is compared with, written to be read.

Classes, attributes and parameters have the names that Hugging Face's implementation gives them, so that weights and
tools for one fit the other.
"""

from mobilevit_fast.checkpoints.io import register_models
from mobilevit_fast.models.block import MobileViTLayer
from mobilevit_fast.models.classification import MobileViTClassifierHead, MobileViTForImageClassification
from mobilevit_fast.models.layers import (
    MobileViTConvLayer,
    MobileViTInvertedResidual,
    MobileViTMobileNetLayer,
)
from mobilevit_fast.models.mobilevit import MobileViTEncoder, MobileViTModel
from mobilevit_fast.models.outputs import (
    EncoderOutput,
    ImageClassifierOutput,
    MobileViTModelOutput,
    ModelOutput,
    SemanticSegmenterOutput,
)
from mobilevit_fast.models.pretrained import MobileViTPreTrainedModel
from mobilevit_fast.models.segmentation import (
    MobileViTASPP,
    MobileViTASPPPooling,
    MobileViTDeepLabV3,
    MobileViTForSemanticSegmentation,
)
from mobilevit_fast.models.transformer import (
    MobileViTAttention,
    MobileViTIntermediate,
    MobileViTOutput,
    MobileViTSelfAttention,
    MobileViTSelfOutput,
    MobileViTTransformer,
    MobileViTTransformerLayer,
)

register_models(MobileViTModel, MobileViTForImageClassification, MobileViTForSemanticSegmentation)

__all__ = [
    "EncoderOutput",
    "ImageClassifierOutput",
    "MobileViTASPP",
    "MobileViTASPPPooling",
    "MobileViTAttention",
    "MobileViTClassifierHead",
    "MobileViTConvLayer",
    "MobileViTDeepLabV3",
    "MobileViTEncoder",
    "MobileViTForImageClassification",
    "MobileViTForSemanticSegmentation",
    "MobileViTIntermediate",
    "MobileViTInvertedResidual",
    "MobileViTLayer",
    "MobileViTMobileNetLayer",
    "MobileViTModel",
    "MobileViTModelOutput",
    "MobileViTOutput",
    "MobileViTPreTrainedModel",
    "MobileViTSelfAttention",
    "MobileViTSelfOutput",
    "MobileViTTransformer",
    "MobileViTTransformerLayer",
    "ModelOutput",
    "SemanticSegmenterOutput",
]
