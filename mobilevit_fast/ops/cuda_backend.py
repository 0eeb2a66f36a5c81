"""The CUDA C++ kernel of an operator: where it runs and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mobilevit_fast.native import status as native_status
from mobilevit_fast.ops.registry import Kernel, Packing, takes_types
from mobilevit_fast.support import Support

DEVICE_TYPES = ["cuda", "meta"]
"""Of tensors that the kernels take: one without values may come to lie on a GPU. An emulator adds the CPU."""

_OLDEST = (8, 0)  # Ampere: asynchronous copies and bfloat16
_types = takes_types((torch.float16, torch.bfloat16), ("none", "relu", "silu"))


def _available(device: torch.device) -> Support:
    if device.type not in DEVICE_TYPES:
        return Support(False, f"expected a tensor on an NVIDIA GPU, got one on {device.type}")
    library = native_status()["cuda"]
    if not library.loaded:
        return Support(False, f"the CUDA library is not loaded: {library.reason}")
    if device.type == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device)
        if (properties.major, properties.minor) < _OLDEST:
            found = f"{properties.major}.{properties.minor}"
            return Support(False, f"expected a GPU of compute capability 8.0 or later, got {found}")
        if not compiled_for(library.architectures, properties.major * 10 + properties.minor):
            names = ", ".join(library.architectures)
            found = f"{properties.major}.{properties.minor}"
            return Support(False, f"the CUDA library was compiled for {names}, which a GPU of {found} does not run")
    return Support(True)


def compiled_for(architectures: Sequence[str], capability: int) -> bool:
    """Whether a GPU (90 for compute capability 9.0) runs what was compiled for these; where none are known, yes.

    Code for "90a" runs on 9.0 alone; "80" stands for PTX as well, which the driver translates for every later GPU.
    """
    if not architectures:
        return True
    exact = [int(name[:-1]) for name in architectures if not name.isdigit() and name[:-1].isdigit()]
    return capability in exact or any(name.isdigit() and int(name) <= capability for name in architectures)


def cuda_kernel(takes: Callable[[dict[str, Any]], Support], packing: Packing) -> Kernel:
    """A kernel of the CUDA library; ``takes`` answers for the operator's arguments by name, whatever their type."""

    def takes_all(dtype: torch.dtype, arguments: dict[str, Any]) -> Support:
        support = _types(dtype, arguments)
        return takes(arguments) if support.ok else support

    return Kernel("cuda", _available, takes_all, packing=packing)
