"""Times of the kernels for Hopper, predicted from what the emulator counts: `python -m benchmarks predict`.

It needs no GPU. A region's work is counted as cycles of one multiprocessor, by each of its units (`emulator/work.py`).
Then two rules, one for many images and one for few:

- many images keep every multiprocessor busy: the busiest unit, and half of what the others do, hides nowhere;
- one image is a chain: a block's work on every unit one after the other, a launch, and a delay at each barrier.

The rules' four constants were set by hand, with the times of prototypes and kernels in view: all prototypes come within
1.5 times. So they say which region is out of line and what a new kernel should take, not that the rules hold elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer

from benchmarks.cpu.table import grid, shape_text
from benchmarks.registry import SIZES
from benchmarks.run import RESULTS
from mobilevit_fast.cli.console import usage_error
from mobilevit_fast.files import write_atomically
from testing.shapes import preset_calls

FOLDER = RESULTS / "gpu-h200"
OUT = FOLDER / "predictions.json"
PROTOTYPES = FOLDER / "prototypes.json"
"""Times of standalone kernels of the same designs, which were written and measured before those of the package."""

MANY = 256
MANY_LAUNCH = 2e-6
"""Seconds of a launch of many images until all multiprocessors are busy, and behind that."""
FEW_LAUNCH, WAIT = 2800, 600
"""Cycles of a launch of few images with its first loads, and of a barrier: 450 of an exchange, and the slowest warp."""
BUSY_CLOCK, IDLE_CLOCK = 1.7e9, 1.98e9
"""Cycles a second: under load, where the card's power is the limit, and with few images."""
HIDDEN = 0.5
"""Share of the other units' work that is hidden behind the busiest one's."""
COPY, PIECE = 620, 64
"""Cycles until a bulk copy arrives, and the depth of a piece of torch's matrix product, which waits for each."""


def microseconds(row: Mapping[str, Any]) -> float:
    """Predicted time of a region, by the cycles and barriers of its row."""
    cycles: dict[str, float] = row["cycles"]
    if row["batch"] != MANY:
        chain = sum(cycles.values()) - cycles["weights"]  # which come while the kernel before runs
        return 1e6 * (FEW_LAUNCH + chain + WAIT * row["waits"]) / IDLE_CLOCK
    most = max(cycles.values())
    seconds = MANY_LAUNCH + (most + (1 - HIDDEN) * (sum(cycles.values()) - most)) / BUSY_CLOCK
    if row["operator"] == "classifier_head":  # its classes are torch's matrix product, another launch
        seconds += MANY_LAUNCH + row["shape"]["expanded"] / PIECE * COPY / BUSY_CLOCK
    return 1e6 * seconds


def busiest(row: Mapping[str, Any]) -> str:
    """The unit that takes most of a region's time; of one image, what the launch or the barriers take too."""
    cycles: dict[str, float] = dict(row["cycles"])
    if row["batch"] != MANY:
        del cycles["weights"]
        cycles |= {"launch": FEW_LAUNCH, "barriers": WAIT * row["waits"]}
    return max(cycles, key=lambda unit: cycles[unit])


def rows_of(size: str) -> Iterator[dict[str, Any]]:
    """Rows of every region of a size of model."""
    from emulator.work import count  # compiles it

    for batch in (MANY, 1):
        found: dict[str, dict[str, Any]] = {}
        for call in preset_calls(SIZES[size], 1, 256, torch.float16):
            name = f"{call.op} {shape_text(call.shape)}"
            if name in found:
                found[name]["calls"] += 1
                continue
            cycles, waits = count(call, batch)
            row = {"model": size, "batch": batch, "operator": call.op, "shape": call.shape, "calls": 1}
            found[name] = {**row, "waits": waits, "cycles": cycles}
        yield from found.values()


Region = tuple[int, str, str]
"""Images, operator and shape; sizes of model share some."""


def region_of(row: Mapping[str, Any]) -> Region:
    """The region of a row of any of the files."""
    return row["batch"], row["operator"], shape_text(row["shape"])


def load(path: Path = OUT) -> dict[str, Any]:
    """Content of a file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


class Beside(NamedTuple):
    """What stands beside a measured time: predicted microseconds with the busiest unit, and the prototype's, if any."""

    predicted: float
    busiest: str
    prototype: float | None


def beside() -> dict[Region, Beside]:
    """Predictions and prototypes of all regions that are predicted."""
    prototypes = {region_of(row): row["us"] for row in load(PROTOTYPES)["rows"]}
    rows = load()["rows"]
    return {region_of(row): Beside(microseconds(row), busiest(row), prototypes.get(region_of(row))) for row in rows}


def predict(
    size: Annotated[list[str] | None, typer.Option(help="Size of model; may be given several times.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Write the committed file.")] = False,
) -> None:
    """Count the work of every region for 256 images and for one, and print the predicted times."""
    if unknown := [name for name in size or () if name not in SIZES]:
        raise usage_error(f"--size: expected some of {', '.join(SIZES)}, got {', '.join(unknown)}")
    if size and update:
        raise usage_error("--update: expected every size, got --size")
    rows = [row for name in size or SIZES for row in rows_of(name)]
    lines = [
        [f"{r['model']}, {r['batch']}", f"`{r['operator']}` {shape_text(r['shape'])}", f"{microseconds(r):.1f}",
         *(f"{cycles:,.0f}" for cycles in r["cycles"].values()), f"{r['waits']:.0f}"]
        for r in rows
    ]  # fmt: skip
    typer.echo(grid(["model, images", "region", "µs", *rows[0]["cycles"], "barriers"], lines))
    for name in size or SIZES:
        for batch in (MANY, 1):
            own = [row for row in rows if (row["model"], row["batch"]) == (name, batch)]
            typer.echo(f"{name}, {batch} images: {sum(microseconds(row) * row['calls'] for row in own):,.0f} µs")
    if update:
        head = {"about": __doc__.splitlines()[0].split(":")[0]}
        body = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
        text = json.dumps(head, ensure_ascii=False)[:-1] + f', "rows": [\n  {body}\n]}}\n'
        write_atomically(OUT, text.encode())
        typer.echo(f"written to {OUT.name}")
