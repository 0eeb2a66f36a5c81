"""Modules that run the fused operators: ordinary ones, made by their constructors, trained and put into any model.

Those over a region of MobileViT, which are ASPP, ClassifierHead, ConvNormAct, InvertedResidual and MobileViTBlock, have
the children of this package's plain modules, and run these in training and wherever gradients are needed.
``copy_weights_from(module)`` takes over the weights of a module of transformers or timm; ``from_module(module)`` makes
a fused twin of it, which shares its parameters and has its library's names.
"""

from mobilevit_fast.acceleration.regions import ASPP, ClassifierHead, ConvNormAct, InvertedResidual, MobileViTBlock
from mobilevit_fast.nn.depthwise import DepthwiseConv2d, DepthwiseSeparableConv2d

__all__ = [
    "ASPP",
    "ClassifierHead",
    "ConvNormAct",
    "DepthwiseConv2d",
    "DepthwiseSeparableConv2d",
    "InvertedResidual",
    "MobileViTBlock",
]
