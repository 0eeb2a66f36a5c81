"""Find the fastest tiles of the Triton kernels on this GPU: `python -m benchmarks tune`; writes the package's table.

For every launch of the presets' models, from the tile in use: change one number at a time and keep what is faster,
until no change is. About fifteen measurements a launch, a second each with its compilation.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import triton
import typer
from rich.progress import track

from benchmarks.launches import recorded_launches
from mobilevit_fast.config import PRESETS
from mobilevit_fast.files import write_atomically
from mobilevit_fast.kernels.triton import tiles
from mobilevit_fast.kernels.triton.launch import Launch
from mobilevit_fast.kernels.triton.tiles import Tile
from testing.shapes import preset_calls

_BLOCKS = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "BLOCK_E", "BLOCK_H", "BLOCK_C")  # not those that a shape determines
_LIMITS = {**dict.fromkeys(_BLOCKS, (16, 256)), "num_warps": (1, 16), "num_stages": (1, 5)}


def neighbours(tile: Tile) -> Iterator[Tile]:
    """The tiles that differ in one number: half or twice a block or the warps, one stage fewer or more."""
    for name, (least, most) in _LIMITS.items():
        if name not in tile:
            continue
        value = tile[name]
        for other in (value - 1, value + 1) if name == "num_stages" else (value // 2, value * 2):
            if least <= other <= most:
                yield {**tile, name: other}


def descend(tile: Tile, milliseconds: Callable[[Tile], float], gain: float = 0.02) -> tuple[Tile, float]:
    """The best tile that single steps of at least ``gain`` reach from ``tile``, and its time."""
    best, least = tile, milliseconds(tile)
    tried = {tuple(tile.items())}
    improved = True
    while improved:
        improved = False
        for other in neighbours(best):
            if tuple(other.items()) in tried:
                continue
            tried.add(tuple(other.items()))
            found = milliseconds(other)
            if found < least * (1 - gain):
                best, least, improved = other, found, True
                break
    return best, least


def launches_of(
    preset: str, batch: int, dtype: torch.dtype, device: torch.device, *, segmentation: bool = False
) -> list[Launch]:
    """Launches of a preset at 256 px, or for segmentation at 512, with tensors on a device (random weights: they do not
    change times)."""
    launches: list[Launch] = []
    for call in preset_calls(preset, batch, 512 if segmentation else 256, dtype, segmentation=segmentation):
        arguments = [
            torch.randn(a.shape, device=device).to(a.dtype).as_strided(a.shape, a.stride())
            if isinstance(a, torch.Tensor)
            else a
            for a in call.arguments
        ]
        launches += recorded_launches(call.op, arguments)
    return launches


def _milliseconds(one: Launch) -> Callable[[Tile], float]:
    def measure(tile: Tile) -> float:
        try:
            return float(triton.testing.do_bench(lambda: one.run(tile), warmup=5, rep=20, return_mode="median"))
        except (triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError):
            return math.inf  # this tile does not fit the chip

    return measure


def tune(
    models: Annotated[list[str] | None, typer.Option("--model", help="Size; several times for several.")] = None,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="Images; several times for several.")] = None,
    mode: Annotated[str, typer.Option("--type", help="float16, bfloat16, float32, or tf32.")] = "float16",
    segmentation: Annotated[bool, typer.Option(help="Models for segmentation, 512 px.")] = False,
    minutes: Annotated[float, typer.Option(help="Stop after so long; what was found is kept.")] = 25.0,
    out: Annotated[Path, typer.Option(help="Table to add to.", show_default="the package's")] = tiles.TABLE,
) -> None:
    """Measure on the current GPU and add the best tiles to the table."""
    if not torch.cuda.is_available():
        sys.exit("python -m benchmarks tune: expected a GPU that torch can use, found none")
    device = torch.device("cuda", torch.cuda.current_device())
    end = time.monotonic() + 60 * minutes
    table = json.loads(out.read_text(encoding="utf-8"))
    torch.set_float32_matmul_precision("high" if mode == "tf32" else "highest")
    dtype = torch.float32 if mode == "tf32" else getattr(torch, mode)
    chip = table.setdefault(tiles.chip_of(device), {})
    for batch in batches or ([1] if segmentation else [256, 1]):
        for preset in models or PRESETS:
            launches = launches_of(preset, batch, dtype, device, segmentation=segmentation)
            for one in track(launches, description=f"{preset}, batch {batch}"):
                name, key = one.kernel.fn.__name__, tiles.shape_key(one.mode, one.shape)
                if key in chip.get(name, {}) or time.monotonic() > end:
                    continue
                chip.setdefault(name, {})[key] = descend(one.tile, _milliseconds(one))[0]
            write_atomically(out, (json.dumps(table, indent=1) + "\n").encode())
