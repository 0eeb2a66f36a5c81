"""What the CUDA kernels of ``csrc/cuda`` need besides themselves."""

from mobilevit_fast.kernels.cuda.backend import cuda_kernel

__all__ = [
    "cuda_kernel",
]
