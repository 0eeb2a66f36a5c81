"""The CUDA kernels on the CPU, by the emulator. A process that has a GPU leaves them alone."""

import torch

from tests.emulator.build import SANITIZED

if SANITIZED or not torch.cuda.is_available():
    from tests.emulator import run

    run.enable()
else:
    collect_ignore_glob = ["test_*.py"]
