"""What the C++ CPU kernels of ``csrc/cpu`` need besides themselves."""

from mobilevit_fast.kernels.cpu.backend import cpu_kernel

__all__ = [
    "cpu_kernel",
]
