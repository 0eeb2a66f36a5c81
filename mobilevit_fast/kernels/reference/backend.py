"""The reference kernel of an operator: it takes everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.kernels.kernel import Kernel
from mobilevit_fast.kernels.support import Support


def _takes_floating_point(dtype: torch.dtype, arguments: dict[str, Any]) -> Support:
    if not dtype.is_floating_point:
        return Support(False, f"expected a floating point type, got {dtype}")
    return Support(True)


def reference_kernel(implementation: Callable[..., Tensor]) -> Kernel:
    """Plain PyTorch: any device, any floating point type."""
    return Kernel("reference", lambda device: Support(True), _takes_floating_point, implementation)
