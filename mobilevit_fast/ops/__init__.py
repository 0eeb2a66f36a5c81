"""Functional operators: the fused regions of MobileViT, each with one schema and a kernel for every backend."""

from mobilevit_fast import native
from mobilevit_fast.kernels import Support
from mobilevit_fast.kernels.epilogue import ACTIVATIONS
from mobilevit_fast.ops.aspp import aspp
from mobilevit_fast.ops.classifier_head import classifier_head
from mobilevit_fast.ops.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.ops.depthwise_conv2d import channel_innermost, depthwise_conv2d
from mobilevit_fast.ops.depthwise_separable_conv2d import depthwise_separable_conv2d
from mobilevit_fast.ops.inverted_residual import inverted_residual
from mobilevit_fast.ops.mobilevit_transformer import mobilevit_transformer
from mobilevit_fast.ops.pixels_to_float import pixels_to_float
from mobilevit_fast.ops.registry import BACKENDS, OPS
from mobilevit_fast.ops.resize_crop import resize_crop, resize_crop_batch

native.load()

__all__ = [
    "ACTIVATIONS",
    "BACKENDS",
    "OPS",
    "Support",
    "aspp",
    "channel_innermost",
    "classifier_head",
    "conv2d_bias_act",
    "depthwise_conv2d",
    "depthwise_separable_conv2d",
    "inverted_residual",
    "mobilevit_transformer",
    "pixels_to_float",
    "resize_crop",
    "resize_crop_batch",
]
