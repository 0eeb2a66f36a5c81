"""Python side of the C++ CPU kernels of ``csrc/cpu``: where they run and what they take."""

from mobilevit_fast.kernels.cpu.backend import cpu_kernel

__all__ = [
    "cpu_kernel",
]
