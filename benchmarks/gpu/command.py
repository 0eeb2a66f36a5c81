"""The command: which stages, in how many minutes, and where the results go."""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
import typer

from benchmarks.environment import head
from benchmarks.gpu import device
from benchmarks.gpu.engine import LOOPS
from benchmarks.gpu.plan import STAGES, Allowance, budgets, planned
from benchmarks.gpu.process import Background
from benchmarks.gpu.report import short, tables
from benchmarks.gpu.results import Results
from benchmarks.gpu.stages import run_stage
from benchmarks.gpu.steps import ahead, file_of, steps
from benchmarks.timing import reason_of
from mobilevit_fast.cli.console import FAILURE, note, stdout, usage_error
from mobilevit_fast.files import write_atomically

NO_GPU = "python -m benchmarks session: expected a GPU that torch can use, found none; --dry-run needs none"
_CAPTION = "Time that steps and stages leave goes to those after them; 0: only if some is left."
_MOST_WAITING = 60.0
"""Seconds that models wait for compilers that began with the first stage."""
_UNKNOWN = "native"
"""The GPU of the machine, by the name that the build knows for it."""


def dry_run(
    names: Sequence[str], seconds: float, out: Path, prebuilt: bool = False, photos: Path | None = None
) -> Iterator[str]:
    """Lines of what would be run, in order, with the time that each has if those before it use all of theirs."""
    if "models" in names:
        yield from (f"beside the stages before models: {' '.join(['python', *words[1:]])}" for words in ahead())
    for stage, budget in budgets(names, seconds).items():
        yield f"{stage}: {budget:.0f} s; {STAGES[stage][1]}; results: {file_of(out, stage)}"
        programs = steps(stage, _UNKNOWN, out, Path("scratch"), prebuilt, photos)
        for step, time_of_step in zip(programs, planned(stage, budget, [s.seconds for s in programs]), strict=True):
            condition = f", {step.condition}" if step.condition else ""
            yield f"  {time_of_step:3.0f} s  {step.name}{condition}: {step.text}"
    yield _CAPTION


def run(
    names: Sequence[str], seconds: float, out: Path, prebuilt: bool = False, photos: Path | None = None
) -> dict[str, Any]:
    """Run stages one after the other; returns the summary, which is in a file after each of them."""
    allowance = Allowance(budgets(names, seconds), seconds)
    common, architecture = head(torch.get_num_threads(), device.facts()), device.architecture()
    summary: dict[str, Any] = {**common, "minutes": seconds / 60, "stages": {}}
    summary |= {"models": [], "operators": [], "engine": []}
    with tempfile.TemporaryDirectory() as scratch, Background(ahead() if "models" in names else []) as compilers:
        for stage in budgets(names, seconds):
            if stage == "models":
                note(f"compiled ahead: {compilers.finish(min(_MOST_WAITING, allowance.left / 10))}")
            budget = allowance.take(stage)
            note(f"{stage}: {STAGES[stage][1]}; {budget:.0f} s")
            results = Results(file_of(out, stage))
            results.create(common)
            start = time.monotonic()
            reason: str | None = "interrupted"
            try:
                made = steps(stage, architecture, out, Path(scratch), prebuilt, photos)
                reason = run_stage(stage, made, results, budget, Path(scratch))
            except Exception as error:  # the next stage is worth having all the same
                reason = reason_of(error)
            finally:
                summary["stages"][stage] = {"seconds": round(time.monotonic() - start, 1), "reason": reason}
                summary["models"] += [short(row) for row in results.rows if row["kind"] == "model"]
                summary["engine"] += [short(row) for row in results.rows if row["kind"] in ("engine", LOOPS)]
                summary["operators"] += [short(row) for row in results.rows if row["kind"] == "operator"]
                _write(summary, out / "summary.json")
            note(f"{stage}: {'done' if reason is None else reason} ({summary['stages'][stage]['seconds']:.0f} s)")
    return summary


def _write(summary: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(summary, indent=1) + "\n").encode())


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by an exception: the program at work is ended with this one


def session(
    out: Annotated[Path, typer.Option(help="Folder for the results; a file for each stage, and summary.json.")],
    minutes: Annotated[float, typer.Option(help="For everything together.", min=0.1)] = 12.0,
    stages: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(STAGES),
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be run; needs no GPU.")] = False,
    prebuilt: Annotated[
        bool, typer.Option("--prebuilt", help="Measure the libraries in the package's folder; build none.")
    ] = False,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos for the stage `engine`, which else makes some.")
    ] = None,
) -> None:
    """Build, test and measure on this machine's first GPU; whatever is known when the time is up is in the results."""
    names = stages.split(",")
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise usage_error(f"--stages: expected some of {', '.join(STAGES)}, got {', '.join(unknown)}")
    if photos is not None and not photos.is_dir():
        raise usage_error(f"--photos: expected a folder, got {photos}")
    out = out.resolve()  # the programs run in the repository
    photos = None if photos is None else photos.resolve()
    if dry:
        typer.echo("\n".join(dry_run(names, 60 * minutes, out, prebuilt, photos)))
        return
    if not device.available():
        note(f"error: {NO_GPU}")
        raise typer.Exit(FAILURE)
    signal.signal(signal.SIGTERM, _stop)
    summary = run(names, 60 * minutes, out, prebuilt, photos)
    stdout().print(*tables(summary))
    if any(outcome["reason"] for outcome in summary["stages"].values()):
        raise typer.Exit(FAILURE)
