"""Kernels written in Python, a package for each backend, a file for each operator; C++ kernels are in ``csrc``."""
