"""uint8 images as float32, by a table of 256 numbers for each channel."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.native import status
from mobilevit_fast.ops.registry import LIBRARY, NAMESPACE

_NAME = "pixels_to_float"
LIBRARY.define(f"{_NAME}.cpu(Tensor x, Tensor table, bool flip_channels, Tensor(a!) out) -> ()")
torch.library.register_fake(f"{NAMESPACE}::{_NAME}.cpu", lambda *arguments: None, lib=LIBRARY)


@cache
def _has_kernel() -> bool:
    """Whether the CPU library is loaded, and none from before it had this."""
    return status()["cpu"].loaded and torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{_NAME}.cpu", "CPU")


def pixels_to_float(x: Tensor, table: Tensor, *, flip_channels: bool = False, out: Tensor | None = None) -> Tensor:
    """The number that the table of a channel has for each byte; exact whatever made the table.

    Args:
        x: (N, C, H, W) uint8, of any memory layout.
        table: (C, 256) float32, in the order of ``x``'s channels.
        flip_channels: reverse the channels.
        out: (N, C, H, W) float32 for the result, of any memory layout; None for a new one.

    Returns:
        ``out``; a new one is channels_last.

    Raises:
        RuntimeError: arguments that do not fit together.
    """
    if out is None:
        out = torch.empty(x.shape, dtype=torch.float32, device=x.device, memory_format=torch.channels_last)
    if x.device.type == "cpu" and _has_kernel():
        overload: Any = torch.ops.mobilevit_fast.pixels_to_float.cpu
        overload(x, table, flip_channels, out)
        return out
    for channel in range(x.shape[1]):
        target = x.shape[1] - 1 - channel if flip_channels else channel
        out[:, target] = table[channel][x[:, channel].long()]
    return out
