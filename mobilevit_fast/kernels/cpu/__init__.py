"""CPU kernels composed in Python from C++ ones, for regions that have no single C++ kernel."""

from mobilevit_fast.kernels.cpu.depthwise_separable_conv2d import depthwise_separable_conv2d
from mobilevit_fast.kernels.cpu.inverted_residual import inverted_residual

__all__ = ["depthwise_separable_conv2d", "inverted_residual"]
