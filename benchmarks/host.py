"""The host's part of a forward on Hopper, measured without a GPU: `python -m benchmarks host`."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from benchmarks.cpu.table import grid
from benchmarks.registry import SIZES
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import MobileViTForImageClassification


def host(batch: Annotated[int, typer.Option(min=1, help="Images of a call.")] = 1) -> None:
    """Print microseconds of this machine's processor for a call of each size of model, launches left out."""
    from emulator.host import measure  # compiles the emulator

    torch.set_num_threads(1)
    lines = []
    for name, preset in SIZES.items():
        model = MobileViTForImageClassification(MobileViTConfig.preset(preset)).eval().half()
        times = measure(model, torch.zeros(batch, 3, 256, 256, dtype=torch.float16))
        lines.append([name, *(f"{time:.0f}" for time in times)])
    typer.echo(grid(["model", "by modules, µs", "recorded, until the last launch", "check behind it"], lines))
