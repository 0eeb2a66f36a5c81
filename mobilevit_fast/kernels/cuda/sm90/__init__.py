"""What the kernels of ``csrc/cuda/sm90`` need besides themselves."""
