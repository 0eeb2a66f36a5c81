"""Modules that run the fused operators."""

from mobilevit_fast.nn.aspp import ASPP
from mobilevit_fast.nn.classifier_head import ClassifierHead
from mobilevit_fast.nn.conv2d_bias_act import ConvNormAct
from mobilevit_fast.nn.depthwise import DepthwiseConv2d, DepthwiseSeparableConv2d
from mobilevit_fast.nn.inverted_residual import InvertedResidual
from mobilevit_fast.nn.mobilevit_block import MobileViTBlock

__all__ = [
    "ASPP",
    "ClassifierHead",
    "ConvNormAct",
    "DepthwiseConv2d",
    "DepthwiseSeparableConv2d",
    "InvertedResidual",
    "MobileViTBlock",
]
