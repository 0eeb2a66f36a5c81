"""Python side of the kernels of ``csrc/cuda/sm90``: the sizes that they take, and packed weights."""
