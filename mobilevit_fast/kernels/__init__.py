"""Kernels written in Python, a package for each backend, a file for each operator; C++ kernels are in ``csrc``."""

from mobilevit_fast.kernels.kernel import Kernel, Packing
from mobilevit_fast.kernels.support import Support

__all__ = [
    "Kernel",
    "Packing",
    "Support",
]
