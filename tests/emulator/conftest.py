"""The CUDA kernels on the CPU, by the emulator."""

from tests.emulator import run

run.enable()
