"""`python -m benchmarks.cpu`."""

import os

# Waiting threads of OpenMP that spin would take the cores from the library measured next. OpenMP reads this when torch
# loads it, so it is set before anything imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.cpu.command import main

if __name__ == "__main__":
    main()
