"""Python side of the CUDA kernels of ``csrc/cuda``: where they run, what they take, packed weights."""

from mobilevit_fast.kernels.cuda.backend import cuda_kernel

__all__ = [
    "cuda_kernel",
]
