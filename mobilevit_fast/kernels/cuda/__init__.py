"""What the CUDA kernels of ``csrc/cuda`` need besides themselves."""
