"""The CUDA C++ kernel of an operator: where it runs and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mobilevit_fast.kernels.kernel import Kernel, Packing, new_enough, takes_types
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.native import status as native_status

DEVICE_TYPES = ["cuda", "meta"]
"""Of tensors that the kernels take: one without values may come to lie on a GPU. An emulator adds the CPU."""

_DTYPES = (torch.float16, torch.bfloat16)


def _available(device: torch.device) -> Support:
    if device.type not in DEVICE_TYPES:
        return Support(False, f"expected a tensor on an NVIDIA GPU, got one on {device.type}")
    library = native_status()["cuda"]
    if not library.loaded:
        return Support(False, f"the CUDA library is not loaded: {library.reason}")
    return new_enough(device)


def cuda_kernel(takes: Callable[[dict[str, Any]], Support], packing: Packing) -> Kernel:
    """A kernel of the CUDA library; ``takes`` answers for the operator's arguments by name, whatever their type."""
    return Kernel("cuda", _available, takes_types(_DTYPES, takes, bytes_too=True), packing=packing)
