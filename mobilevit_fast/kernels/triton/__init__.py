"""Kernels for every GPU that Triton knows. All modules but ``backend`` and ``rules`` import Triton.

All kernels read and write channels_last pixels: element (n, c, h, w) lies at ((n·H + h)·W + w)·C + c, and "a pixel" is
the number (n·H + h)·W + w. Offsets of pixels are 64-bit, so tensors may pass 2³¹ elements. Products are summed in
float32, whatever the type of the tensors.
"""

from mobilevit_fast.kernels.triton.backend import triton_kernel

__all__ = [
    "triton_kernel",
]
