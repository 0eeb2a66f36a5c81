"""The CUDA C++ kernel of an operator: where it runs and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.kernels.cuda.rules import has_sm90
from mobilevit_fast.kernels.kernel import Kernel, Packing, new_enough, takes_types
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.native import status as native_status

DEVICE_TYPES = ["cuda", "meta"]
"""Devices of tensors that the kernels take: one without values may come to lie on a GPU. An emulator adds the CPU."""

_DTYPES = (torch.float16, torch.bfloat16)


def _available(device: torch.device) -> Support:
    if device.type not in DEVICE_TYPES:
        return Support(False, f"expected a tensor on an NVIDIA GPU, got one on {device.type}")
    library = native_status()["cuda"]
    if not library.loaded:
        return Support(False, f"the CUDA library is not loaded: {library.reason}")
    return new_enough(device)


ORDERS = ("sm80 4", "sm90 4")
"""Orders of packed weights, for every chip and for compute capability 9.0 too, as ``csrc/cuda/binding.h`` has them."""


def _order(device: torch.device) -> str:
    return ORDERS[has_sm90(device)]


def cuda_kernel(
    takes: Callable[[dict[str, Any]], Support], pack: Callable[..., Tensor], settings: tuple[str, ...] = ()
) -> Kernel:
    """A kernel of the CUDA library.

    Args:
        takes: answers for the operator's arguments by name, whatever their type.
        pack: takes its weights as one tuple and these settings, returns them in words of float32.
        settings: names of the arguments that packing depends on.
    """

    packing = Packing(pack, _order, settings=settings)
    return Kernel("cuda", _available, takes_types(_DTYPES, takes, bytes_too=True), packing=packing)
