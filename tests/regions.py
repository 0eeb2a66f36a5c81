"""Every region of the three sizes of MobileViT at 256x256, with random parameters and images."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast.config import PRESETS
from testing.shapes import OperatorCall, preset_calls


@cache
def _calls() -> dict[str, OperatorCall]:
    found: dict[str, OperatorCall] = {}
    for preset in PRESETS:
        for call in preset_calls(preset, 1, 256, torch.float16):
            found.setdefault(f"{call.op}-{'-'.join(map(str, call.shape.values()))}", call)
    return found


def regions(*ops: str) -> list[Any]:
    """One call of each shape, of these operators or of all of them, as parameters of a test."""
    return [pytest.param(call, id=name) for name, call in _calls().items() if not ops or call.op in ops]


def arguments(
    call: OperatorCall,
    batch: int,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float16,
) -> tuple[Any, ...]:
    """A call's arguments with values: parameters that keep a signal about as large as it is, images of this type."""
    generator = torch.Generator().manual_seed(seed)

    def values(name: str, like: Tensor) -> Tensor:
        like = like.to(dtype) if like.dtype == torch.float16 else like
        if name in ("x", "x2"):
            made = torch.randn(batch, *like.shape[1:], generator=generator).to(like.dtype)
            return made if like.is_contiguous() else made.contiguous(memory_format=torch.channels_last)
        made = torch.randn(like.shape, generator=generator)
        if name.endswith("scale") or name in ("norm_weight", "norm1_weight", "norm2_weight"):
            return (1 + 0.2 * made).to(like.dtype)
        if name.endswith("bias"):
            return (0.3 * made).to(like.dtype)
        stacked = name in ("qkv_weight", "proj_weight", "fc1_weight", "fc2_weight")  # of layers
        fan_in = like.shape[-1] if stacked else like.shape[1:].numel()
        return (made * fan_in**-0.5).to(like.dtype)

    return tuple(
        values(name, value).to(device) if isinstance(value, Tensor) else value for name, value in call.named.items()
    )


def double(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments in float64."""
    return tuple(a.double() if isinstance(a, Tensor) and a.dtype.is_floating_point else a for a in given)
