"""CUDA kernels on the CPU: what stands for the device, compiled with the kernels, and how operators run on it."""
