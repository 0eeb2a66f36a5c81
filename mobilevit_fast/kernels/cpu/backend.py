"""The C++ CPU kernel of an operator: where it runs and what it takes."""

from __future__ import annotations

import torch

from mobilevit_fast.kernels.kernel import Kernel, Packing, takes_types
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.native import status as native_status


def _cpu_available(device: torch.device) -> Support:
    if device.type != "cpu":
        return Support(False, f"expected a CPU tensor, got one on {device.type}")
    library = native_status()["cpu"]
    if not library.loaded:
        return Support(False, f"the CPU library is not loaded: {library.reason}")
    return Support(True)


def cpu_kernel(packing: Packing | None = None) -> Kernel:
    """A kernel of the C++ CPU library."""
    return Kernel("cpu", _cpu_available, takes_types((torch.float32, torch.bfloat16)), packing=packing)
