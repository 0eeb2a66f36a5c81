"""Bytes that the Triton kernels move, and the time that takes at least: `python -m benchmarks traffic`; no GPU.

Every tensor of a launch counts once, tensors that are read and written twice: neighbouring windows, blocks of columns
and keys are taken to come from the cache. Weights are shared by the images of a batch.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

import torch
import typer

from benchmarks.floors import bytes_of, work_of
from benchmarks.launches import recorded_launches
from mobilevit_fast.config import PRESETS
from mobilevit_fast.kernels.triton.launch import Launch
from testing.shapes import preset_calls


def moved_bytes(one: Launch) -> int:
    """Bytes read and written by a launch whose tensors each pass the memory once."""
    updated = (a for name, a in one.arguments.items() if name == "tokens_ptr")  # read and written
    return bytes_of(*one.arguments.values(), *updated)


def table(preset: str, batch: int, bandwidth: float, rate: float) -> str:
    """Per operator: launches, MB and 10⁶ MACs an image, microseconds at a bandwidth (TB/s) and rate (TMAC/s)."""
    regions: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for call in preset_calls(preset, batch, 256, torch.float16):
        launches = recorded_launches(call.op, call.arguments)
        moved, products = sum(map(moved_bytes, launches)) / batch, work_of(call.op, call.named).products / batch
        seconds = max(moved / (bandwidth * 1e12), products / (rate * 1e12))
        for i, value in enumerate((len(launches), moved / 1e6, products / 1e6, seconds * 1e6)):
            regions[call.op][i] += value
    regions["all"] = [sum(values) for values in zip(*regions.values(), strict=True)]
    lines = ["| operator | launches | MB an image | MMAC an image | µs an image |", "|---|---:|---:|---:|---:|"]
    lines += [f"| `{op}` | {n:.0f} | {mb:.2f} | {m:.0f} | {us:.2f} |" for op, (n, mb, m, us) in regions.items()]
    return "\n".join(lines)


def traffic(
    batch: Annotated[int, typer.Option(help="Images in a call.", min=1)] = 256,
    bandwidth: Annotated[float, typer.Option(help="Of the memory, TB/s; 3.0 was measured on an H100.")] = 3.0,
    rate: Annotated[float, typer.Option(help="Of the matrix units, 10¹² products/s; 395 on an H100.")] = 395.0,
) -> None:
    """Print what each size moves in float16 and the least time that takes."""
    for preset in PRESETS:
        typer.echo(f"{preset}, batch {batch}\n\n{table(preset, batch, bandwidth, rate)}\n")
