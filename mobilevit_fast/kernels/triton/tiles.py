"""Block sizes: from a table by chip and shape where one was measured, else by rules. Nothing is tuned inside a call.

``python -m benchmarks tune`` measures on a GPU and writes the table, ``tiles.json``:
chip → kernel → shape, as :func:`shape_key` writes it → tile.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

Tile = dict[str, int]
"""Block sizes by the names of a kernel's parameters, ``num_warps``, ``num_stages`` and perhaps ``maxnreg``."""

TABLE = Path(__file__).with_name("tiles.json")

_chip: str | None = None


@contextmanager
def for_chip(chip: str) -> Iterator[None]:
    """Choose tiles for this chip ("sm_90", "gfx942"), whatever device tensors are on."""
    global _chip
    before, _chip = _chip, chip
    try:
        yield
    finally:
        _chip = before


def chip_of(device: torch.device) -> str:
    """The chip behind a device, as Triton's compiler names it; "any" where there is none to ask."""
    if _chip is not None:
        return _chip
    return _name(device.index or 0) if device.type == "cuda" and torch.cuda.is_available() else "any"


@functools.cache
def _name(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        return str(properties.gcnArchName).split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


ALL_REGISTERS = {"maxnreg": 255}
"""In a tile: as many registers as a thread can have. NVIDIA's compiler, left to itself, spills some of certain kernels
to fit one more program into a processor; of others it spills some where it is given all."""


@functools.cache
def table() -> dict[str, dict[str, dict[str, Tile]]]:
    """The measured tiles."""
    loaded: dict[str, dict[str, dict[str, Tile]]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return loaded


def shape_key(mode: str, shape: tuple[int, ...]) -> str:
    """Key of a measured tile: the type or, of float32 multiplied so, "tf32"; rows, up to the next power of four; the
    sizes that weights have."""
    rows, *sizes = shape
    bucket = 1
    while bucket < rows:
        bucket *= 4
    return ",".join((mode, f"rows<={bucket}", *map(str, sizes)))


def choose(kernel: str, device: torch.device, mode: str, shape: tuple[int, ...], rule: Tile) -> Tile:
    """The measured tile of a kernel for this chip and shape (rows, sizes of weights), or ``rule``."""
    measured = table().get(chip_of(device), {}).get(kernel)
    return rule if measured is None else measured.get(shape_key(mode, shape), rule)


PROGRAMS = 256
"""Programs that fill a chip: about twice the processors of the large ones."""


def row_block(rows: int, programs_per_block: int, largest: int, least: int = 16) -> int:
    """The largest block of rows that still makes enough programs to fill a chip."""
    block = largest
    while block > least and -(-rows // block) * programs_per_block < PROGRAMS:
        block //= 2
    return block


def column_block(columns: int, largest: int) -> int:
    """The largest power of two of which at most a third more columns are computed, or the least wasteful one."""
    best, least_waste = 16, float("inf")
    for block in (size for size in (128, 64, 32, 16) if size <= largest):
        waste = -(-columns // block) * block / columns - 1
        if waste <= 1 / 3:
            return block
        if waste < least_waste:
            best, least_waste = block, waste
    return best
