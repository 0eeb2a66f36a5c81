"""The C++ CPU kernel of an operator: where it runs and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mobilevit_fast.kernels.kernel import Kernel, Packing, takes_types
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.native import extension
from mobilevit_fast.native import status as native_status


def _cpu_available(device: torch.device) -> Support:
    if device.type != "cpu":
        return Support(False, f"expected a CPU tensor, got one on {device.type}")
    for name in ("cpu", "_C"):
        library = native_status()[name]
        if not library.loaded:
            return Support(False, f"the CPU library is not loaded: {library.reason}")
    return Support(True)


def cpu_kernel(op: str, settings: tuple[str, ...] = ()) -> Kernel:
    """A kernel of the C++ CPU library, whose packing depends on these settings too."""

    def shape(sizes: Sequence[int], given: Sequence[Any], dtype: torch.dtype) -> Sequence[int]:
        flat = [number for pair in given for number in pair]
        native: Any = extension()
        found: tuple[int, int] = native.packed_shape(op, [*sizes, *flat], dtype == torch.bfloat16)
        return found

    packing = Packing(shape=shape, settings=settings)
    return Kernel("cpu", _cpu_available, takes_types((torch.float32, torch.bfloat16)), packing=packing)
