"""The command: which stages, in how many minutes, and where the results go."""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.cpu.environment import environment
from benchmarks.gpu import device
from benchmarks.gpu.plan import STAGES, Allowance, budgets, planned
from benchmarks.gpu.results import Results
from benchmarks.gpu.stages import run_stage
from benchmarks.gpu.steps import file_of, steps
from benchmarks.gpu.timing import reason_of
from mobilevit_fast.cli.console import FAILURE, note, stdout, usage_error

NO_GPU = "python -m benchmarks.gpu: expected a GPU that torch can use, found none; --dry-run needs none"
_CAPTION = "Time that steps and stages leave goes to those after them; 0: only if some is left."
_UNKNOWN = "<of this GPU>"


def dry_run(names: Sequence[str], seconds: float, out: Path) -> Table:
    """What would be run, in order, with the time that each has if those before it use all of theirs."""
    table = Table("stage", "step", "seconds", "command", title=f"{seconds / 60:g} minutes", caption=_CAPTION)
    for stage, budget in budgets(names, seconds).items():
        table.add_row(stage, STAGES[stage][1], f"{budget:.0f}", f"results: {file_of(out, stage)}", style="bold")
        programs = steps(stage, _UNKNOWN, out, Path("scratch"))
        for step, time_of_step in zip(programs, planned(stage, budget, [s.seconds for s in programs]), strict=True):
            condition = f" ({step.condition})" if step.condition else ""
            table.add_row("", f"{step.name}{condition}", f"{time_of_step:.0f}", step.text)
    return table


def head() -> dict[str, Any]:
    """What holds for every row of a run: machine, versions, commit, date."""
    found = environment(torch.get_num_threads()) | {"gpu": device.facts()}
    versions = {name: found["versions"].get(name) for name in ("torch", "triton", "transformers", "timm")}
    gpu = {name: found["gpu"][name] for name in ("driver", "cuda")}
    stamp = {"device": found["gpu"]["name"], **gpu, **versions}
    return {"environment": found, "stamp": {**stamp, "commit": found["git"]["commit"], "date": found["date"]}}


def run(names: Sequence[str], seconds: float, out: Path) -> dict[str, Any]:
    """Run stages one after the other; returns the summary, which is in a file after each of them."""
    allowance = Allowance(budgets(names, seconds), seconds)
    common, architecture = head(), device.architecture()
    summary: dict[str, Any] = {**common, "minutes": seconds / 60, "stages": {}, "models": [], "operators": []}
    with tempfile.TemporaryDirectory() as scratch:
        for stage in budgets(names, seconds):
            budget = allowance.take(stage)
            note(f"{stage}: {STAGES[stage][1]}; {budget:.0f} s")
            results = Results(file_of(out, stage))
            results.create(common)
            start = time.monotonic()
            try:
                reason = run_stage(
                    stage, steps(stage, architecture, out, Path(scratch)), results, budget, Path(scratch)
                )
            except Exception as error:  # the next stage is worth having all the same
                reason = reason_of(error)
            summary["stages"][stage] = {"seconds": round(time.monotonic() - start, 1), "reason": reason}
            summary["models"] += [short(row) for row in results.rows if row["kind"] == "model"]
            summary["operators"] += [short(row) for row in results.rows if row["kind"] == "operator"]
            _write(summary, out / "summary.json")
            note(f"{stage}: {'done' if reason is None else reason} ({summary['stages'][stage]['seconds']:.0f} s)")
    return summary


_SHORT = ("model", "operator", "shape", "dtype", "batch", "provider", "images_s", "median_ms", "p20_ms", "p80_ms")
_SHORT += (
    "latency_ms",
    "ours_beside_ms",
    "max_error",
    "top1_agreement",
    "peak_mb",
    "share_of_floor",
    "error",
    "reason",
)


def short(row: dict[str, Any]) -> dict[str, Any]:
    """The part of a row that tells most."""
    return {name: row[name] for name in _SHORT if name in row}


def _write(summary: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def table_of(summary: dict[str, Any]) -> Table:
    """Stages, then models with their speed and accuracy, on a page."""
    table = Table("what", "ms", "images/s", "error", "top-1", "reason", title=summary["environment"]["gpu"]["name"])
    for stage, outcome in summary["stages"].items():
        table.add_row(f"{stage}, {outcome['seconds']:.0f} s", "", "", "", "", (outcome["reason"] or "done")[:90])
    for row in summary["models"]:
        what = f"{row['model']} {row['dtype']} batch {row['batch']}: {row['provider']}"
        numbers = ("median_ms", "images_s", "max_error", "top1_agreement")
        cells = [f"{row[name]:.4g}" if name in row else "" for name in numbers]
        table.add_row(what, *cells, (row["reason"] or "")[:90])
    return table


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by an exception: the program at work is ended with this one


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def gpu(
    out: Annotated[Path, typer.Option(help="Folder for the results; a file for each stage, and summary.json.")],
    minutes: Annotated[float, typer.Option(help="For everything together.", min=0.1)] = 12.0,
    stages: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(STAGES),
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be run; needs no GPU.")] = False,
) -> None:
    """Build, test and measure on this machine's first GPU; whatever is known when the time is up is in the results."""
    names = stages.split(",")
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise usage_error(f"--stages: expected some of {', '.join(STAGES)}, got {', '.join(unknown)}")
    out = out.resolve()  # the programs run in the repository
    if dry:
        stdout().print(dry_run(names, 60 * minutes, out))
        return
    if not device.available():
        note(f"error: {NO_GPU}")
        raise typer.Exit(FAILURE)
    signal.signal(signal.SIGTERM, _stop)
    summary = run(names, 60 * minutes, out)
    stdout().print(table_of(summary))
    if any(outcome["reason"] for outcome in summary["stages"].values()):
        raise typer.Exit(FAILURE)
