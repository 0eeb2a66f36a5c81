"""The least time of a model on a chip, region by region: `python -m benchmarks roofline --size S --chip h100`; no GPU.

A region is an operator of the accelerated model. What is counted, and where the numbers of the chips are from, stands
in `benchmarks/floors.py`. Those of `cpu` are measured when the command runs, as the best matrix product and the best
copy of PyTorch: images of a few that stay in a cache can be faster than that memory.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.cpu.measure import copy_rate, matmul_rate
from benchmarks.cpu.table import shape_text
from benchmarks.floors import CHIPS, Chip, Floor, Work, work_of
from benchmarks.registry import SIZES
from mobilevit_fast.cli.console import stdout, usage_error
from testing.shapes import different, preset_calls

DTYPES = ("float16", "bfloat16", "float32")
TIMES = ("memory_us", "products_us", "exponentials_us")


SMALL = 512
"""Rows of the matrices that tell whether the processor has a type, or PyTorch goes through it element by element."""


def measured_cpu(dtype: str) -> Chip:
    """This machine, with as many threads as torch uses; MACs at the better of float32's rate and the type's own."""
    threads = torch.get_num_threads()
    kind = getattr(torch, dtype)
    rate = matmul_rate(torch.float32, threads)
    if kind != torch.float32 and matmul_rate(kind, threads, SMALL, 2) > rate / 2:
        rate = max(rate, matmul_rate(kind, threads))
    label = f"this CPU, {threads} thread{'s' if threads > 1 else ''}"
    return Chip(label, 1e9 * copy_rate(threads), {dtype: 1e9 * rate})


def rows_of(
    size: str, batch: int, dtype: str, chip: Chip, image_size: int = 256, *, segmentation: bool = False
) -> list[dict[str, Any]]:
    """A row for each different call of an operator: its work for the whole batch, and microseconds."""
    calls = preset_calls(SIZES[size], batch, image_size, getattr(torch, dtype), segmentation=segmentation)
    rows = []
    for call, count in different(calls):
        work = work_of(call.op, call.named)
        floor = chip.floor(work, dtype)
        rows.append(
            {
                "operator": call.op,
                "shape": shape_text(call.shape),
                "residual": bool(call.named.get("residual")),
                "calls": count,
                **work._asdict(),
                **_microseconds(floor),
                "floor_us": 1e6 * floor.least,
                "bound": floor.bound,
            }
        )
    return rows


def _microseconds(floor: Floor) -> dict[str, float | None]:
    return {f"{name}_us": None if value is None else 1e6 * value for name, value in floor._asdict().items()}


def totals_of(rows: list[dict[str, Any]], batch: int, chip: Chip) -> dict[str, Any]:
    """Sums over all calls, and images a second where all but one of the limits are lifted, and where none is.

    The floor of the model is the sum of its regions' floors: one runs after the other.
    """
    names = (*Work._fields, *TIMES, "floor_us")
    sums: dict[str, Any] = {
        name: None if rows[0][name] is None else sum(row["calls"] * row[name] for row in rows) for name in names
    }
    times = {name.removesuffix("_us"): sums[name] for name in (*TIMES, "floor_us")}
    times["unfused_memory"] = 1e6 * sums["unfused_bytes"] / chip.bandwidth
    rates = {name: None if us is None else batch / us * 1e6 for name, us in times.items()}
    return {"calls": sum(row["calls"] for row in rows), **sums, "images_s": rates}


def table_of(rows: list[dict[str, Any]], totals: dict[str, Any], title: str) -> Table:
    """For people: each number of one call, and below them their sums over all calls."""
    header = ["calls", "MMAC", "Mexp", *(f"MB\n{name}" for name in ("unfused", "fused", "weights"))]
    header += [f"µs\n{name}" for name in ("memory", "products", "exp", "floor")]
    table = Table("operator", title=title)
    for name in header:
        table.add_column(name, justify="right")
    table.add_column("bound")
    for row in rows:
        text = f"{row['operator']} {row['shape']}{', residual' if row['residual'] else ''}"
        table.add_row(text, *_cells(row), row["bound"], end_section=row is rows[-1])
    table.add_row("all calls", *_cells(totals), "")
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    counts = [f"{row[name] / 1e6:,.{digits}f}" for name, digits in zip(Work._fields, (1, 2, 2, 2, 2), strict=True)]
    times = ["–" if row[name] is None else f"{row[name]:,.2f}" for name in (*TIMES, "floor_us")]
    return [str(row["calls"]), *counts, *times]


def _name_of_chip(text: str) -> str:
    name = text.lower().replace(" ", "").replace("-", "")
    if name != "cpu" and name not in CHIPS:
        raise usage_error(f"--chip: expected one of {', '.join(CHIPS)}, cpu, got {text}")
    return name


def roofline(
    size: Annotated[str, typer.Option(help="S, XS or XXS.")] = "S",
    image_size: Annotated[int, typer.Option(help="Pixels.", min=32)] = 256,
    batch: Annotated[int, typer.Option(help="Images in a call.", min=1)] = 1,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    chip: Annotated[str, typer.Option(help=f"{', '.join(CHIPS)}, or cpu: measured here.")] = "h100",
    bandwidth: Annotated[float | None, typer.Option(help="Of the memory, TB/s, instead of the chip's.")] = None,
    rate: Annotated[float | None, typer.Option(help="10¹² products/s (TFLOP/s by two) instead of the chip's.")] = None,
    segmentation: Annotated[bool, typer.Option(help="21 classes at output stride 16, with the pyramid.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print bytes, products and exponentials of every region, and the time each of them takes alone."""
    for name, value, known in (("--size", size, tuple(SIZES)), ("--dtype", dtype, DTYPES)):
        if value not in known:
            raise usage_error(f"{name}: expected one of {', '.join(known)}, got {value}")
    for name, number in (("--bandwidth", bandwidth), ("--rate", rate)):
        if number is not None and not 0 < number < float("inf"):
            raise usage_error(f"{name}: expected more than 0, got {number}")
    key = _name_of_chip(chip)
    found = measured_cpu(dtype) if key == "cpu" else CHIPS[key]
    if bandwidth is not None:
        found = found._replace(bandwidth=1e12 * bandwidth)
    if rate is not None:
        found = found._replace(rates={dtype: 1e12 * rate})
    rows = rows_of(size, batch, dtype, found, image_size, segmentation=segmentation)
    totals = totals_of(rows, batch, found)
    conditions = {
        "model": size,
        "task": "segmentation" if segmentation else "classification",
        "image_size": image_size,
        "batch": batch,
        "dtype": dtype,
        "chip": found.label,
        "bandwidth_b_s": found.bandwidth,
        "products_s": found.rates[dtype],
        "exponentials_s": found.exponentials,
    }
    if as_json:
        typer.echo(json.dumps({"conditions": conditions, "rows": rows, "totals": totals}, indent=1))
        return
    title = (
        f"{size}, {conditions['task']}, {batch} image{'s' if batch > 1 else ''} of {image_size} px, {dtype}; "
        f"{found.label}: {found.bandwidth / 1e12:.3g} TB/s, {found.rates[dtype] / 1e12:.3g}·10¹² products/s"
    )
    console = stdout()
    console.print(table_of(rows, totals, title))
    rates = ", ".join(f"{name.replace('_', ' ')} {n:,.0f}" for name, n in totals["images_s"].items() if n is not None)
    console.print(f"images/s at most: {rates}")
