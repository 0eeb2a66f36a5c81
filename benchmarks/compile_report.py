"""Report of the compilers on the Triton kernels: `python -m benchmarks compile-report [--out FILE]`; needs no GPU.

Every kernel that the three sizes launch for batches of 1 to 256, in every type, for every chip: registers, shared
memory, spilled bytes, instructions of matrix units, programs that a processor holds at once.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import triton
import typer
from rich.progress import track

from benchmarks.compiled import CHIPS, MODES, Row, distinct, inspect, model_launches
from mobilevit_fast.files import write_atomically

OUT = Path(__file__).parent / "results" / "triton-compiled.json"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def rows_of(case: tuple[str, str, int, int]) -> list[dict[str, Any]]:
    """The rows of a share of the kernels of one chip and type: every ``shares``-th one, from ``share`` on."""
    chip, mode, share, shares = case
    launches = distinct(model_launches(chip, mode, BATCHES))
    return [inspect(chip, mode, one).to_dict() for one in launches[share::shares]]


def problems(rows: list[dict[str, Any]]) -> list[str]:
    """Kernels that spill, that a chip cannot hold, or that miss the matrix units."""
    found = []
    for fields in rows:
        row = Row(**fields)
        name = f"{row.kernel} on {row.chip}, {row.mode}, {row.tile}, {row.variant}"
        if row.spilled:
            found.append(f"{name}: {row.spilled} bytes spilled at {row.registers} registers")
        if row.shared_memory > CHIPS[row.chip].shared_memory:
            found.append(f"{name}: {row.shared_memory} bytes of shared memory")
        if row.programs == 0:
            found.append(f"{name}: a processor cannot hold a program")
        if row.mode != "float32" and row.products == 0:
            found.append(f"{name}: no instruction of a matrix unit")
    return found


def report(
    chips: Annotated[list[str] | None, typer.Option("--chip", help="Chip; may be given several times.")] = None,
    modes: Annotated[list[str] | None, typer.Option("--type", help="Type; may be given several times.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="JSON file to write.", show_default="in benchmarks/results")] = OUT,
) -> None:
    """Compile every Triton kernel of the three sizes for chips that need not be here, and write what came of it."""
    shares = 4
    cases = [(c, m, s, shares) for c in chips or CHIPS for m in modes or MODES for s in range(shares)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        parts = list(track(pool.imap(rows_of, cases), total=len(cases), description="compiling"))
    rows = sorted((row for part in parts for row in part), key=lambda row: [str(v) for v in row.values()])
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    versions = json.dumps({"triton": triton.__version__, "torch": torch.__version__})
    write_atomically(out, f'{{\n"versions": {versions},\n"rows": [\n  {lines}\n]\n}}\n'.encode())
    found = problems(rows)
    typer.echo("\n".join([f"{len(rows)} kernels, written to {out.name}", *found]))
    if found:
        sys.exit(1)
