"""Work of a region's kernel for compute capability 9.0, in cycles of one multiprocessor of an H200, by unit.

The kernel runs at full width and size. Rates are those that each unit was measured to have alone, but for schedulers,
of which what is counted is a part: neither float32 arithmetic nor addresses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from emulator import run
from emulator.run import PROCESSORS, Launch
from testing.shapes import OperatorCall

MANY, EMULATED, MULTIPROCESSORS = 256, 12, 6
"""As many images on as many multiprocessors stand for 256 on 132: about two each."""
CAPABILITY = 90
IMAGES = ("x", "x2", "y")
"""Arrays that are no weights."""

MMA_MACS, MMA_RATE = 16 * 8 * 16, 1340
"""Multiply-adds of an instruction of a warp, and those of a cycle; a warpgroup's are counted in cycles."""
SPECIAL_RATE, ISSUE_RATE = 16, 4 * 32
"""Threads' instructions a cycle: of the special-function unit, and of all schedulers."""
MEMORY = 4.0e12 / PROCESSORS / 1.7e9
"""Bytes a cycle from memory, at the clock under load."""
CACHE = 38
"""Bytes a cycle from the second-level cache by copies of 8 KB, two to four at a time."""


def arguments_of(call: OperatorCall, images: int) -> tuple[Any, ...]:
    """Values for a call, of so many images."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for name, value in call.named.items():
        if not isinstance(value, Tensor):
            found.append(value)
            continue
        shape = (images, *value.shape[1:]) if name in IMAGES else value.shape
        made = (0.1 * torch.randn(shape, generator=generator)).to(value.dtype)
        found.append(made.contiguous(memory_format=torch.channels_last) if name in IMAGES else made)
    return tuple(found)


def cycles_of(launch: Launch, share: float) -> dict[str, float]:
    """Cycles of one multiprocessor by unit; ``share``: of the launch's work, what it has."""
    moved = launch.moved(*(name for name in launch.arrays if name in IMAGES))
    weights = launch.moved(*launch.arrays) - moved
    work = {
        "matrix": launch.wgmma_clocks + launch.products * MMA_MACS / MMA_RATE,
        "special": launch.exponentials / SPECIAL_RATE,
        "shared": launch.wavefronts,
        "issue": (launch.instructions + launch.exponentials) / ISSUE_RATE,
        "memory": moved / MEMORY,
        "weights": weights / CACHE,
    }
    return {unit: round(cycles * share, 1) for unit, cycles in work.items()}


def count(call: OperatorCall, images: int) -> tuple[dict[str, float], float]:
    """Cycles by unit, and the barriers that a thread waits for, of the kernel for so many images: 256 or 1."""
    run.enable()
    emulated, processors = (EMULATED, MULTIPROCESSORS) if images == MANY else (images, PROCESSORS)
    arguments = arguments_of(call, emulated)
    _, launches = run.run(call.op, arguments, watch_banks=True, processors=processors, capability=CAPABILITY)
    (launch,) = launches
    share = images / PROCESSORS / emulated if images == MANY else 1 / min(launch.blocks, PROCESSORS)
    return cycles_of(launch, share), round(launch.waits / launch.threads / launch.blocks, 1)
