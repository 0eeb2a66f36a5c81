"""Plain PyTorch: the kernels that every other one is checked against. Any device, any floating point type."""

from mobilevit_fast.kernels.reference.aspp import aspp
from mobilevit_fast.kernels.reference.backend import reference_kernel
from mobilevit_fast.kernels.reference.classifier_head import classifier_head
from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.kernels.reference.depthwise_conv2d import depthwise_conv2d
from mobilevit_fast.kernels.reference.depthwise_separable_conv2d import depthwise_separable_conv2d
from mobilevit_fast.kernels.reference.inverted_residual import inverted_residual
from mobilevit_fast.kernels.reference.mobilevit_transformer import mobilevit_transformer

__all__ = [
    "aspp",
    "classifier_head",
    "conv2d_bias_act",
    "depthwise_conv2d",
    "depthwise_separable_conv2d",
    "inverted_residual",
    "mobilevit_transformer",
    "reference_kernel",
]
