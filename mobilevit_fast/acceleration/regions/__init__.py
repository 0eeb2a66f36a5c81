"""Regions of a model as fused modules: what each binds to its operators, and how it runs."""

from mobilevit_fast.acceleration.regions.aspp import ASPP
from mobilevit_fast.acceleration.regions.classifier_head import ClassifierHead
from mobilevit_fast.acceleration.regions.conv2d_bias_act import ConvNormAct
from mobilevit_fast.acceleration.regions.inverted_residual import InvertedResidual
from mobilevit_fast.acceleration.regions.mobilevit_block import MobileViTBlock

__all__ = [
    "ASPP",
    "ClassifierHead",
    "ConvNormAct",
    "InvertedResidual",
    "MobileViTBlock",
]
