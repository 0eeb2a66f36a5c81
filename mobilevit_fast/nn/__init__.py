"""Modules that run the fused operators: ordinary ones, made by their constructors, trained and put into any model.

Those over a region of MobileViT, which are ASPP, ClassifierHead, ConvNormAct, InvertedResidual and MobileViTBlock, have
the children of this package's plain modules, and run these in training and wherever gradients are needed.
``copy_weights_from(module)`` takes over the weights of a module of transformers or timm; ``from_module(module)`` makes
a fused twin of it, which shares its parameters and has its library's names.
"""

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
