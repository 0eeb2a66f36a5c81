"""The Triton kernel of an operator: what it takes, and its module, imported at the first call."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.kernels.kernel import Kernel, new_enough, takes_types
from mobilevit_fast.kernels.support import Support

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETING = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
"""Whether Triton runs its kernels on the CPU, element by element; Triton, too, reads its variable once."""


def _device_support(device: torch.device) -> Support:
    """Traced by torch.compile, which keeps from caches and evaluates what it knows of devices."""
    interpreted = device.type == "cpu" and INTERPRETING
    if not interpreted and device.type not in ("cuda", "meta"):  # a tensor without values may come to lie on a GPU
        return Support(False, f"expected a GPU tensor, got one on {device.type}")
    if not INSTALLED:
        return Support(False, "Triton is not installed (`pip install triton`)")
    return Support(True) if interpreted else new_enough(device)


def triton_kernel(op: str, takes: Callable[[dict[str, Any]], Support]) -> Kernel:
    """The kernel ``op`` of ``mobilevit_fast.kernels.triton.<op>``.

    ``takes`` answers for the operator's arguments by name, whatever their type.
    """

    @functools.cache
    def launcher() -> Callable[..., Tensor]:
        found: Callable[..., Tensor] = getattr(importlib.import_module(f"mobilevit_fast.kernels.triton.{op}"), op)
        return found

    def implementation(*arguments: Any) -> Tensor:
        return launcher()(*arguments)

    return Kernel("triton", _device_support, takes_types(_DTYPES, takes), implementation)
