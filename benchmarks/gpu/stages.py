"""Runs the stages: each program with its share of the time, each outcome a row."""

import csv
import io
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu import process
from benchmarks.gpu.plan import Queue
from benchmarks.gpu.process import Outcome
from benchmarks.gpu.results import Results
from benchmarks.gpu.steps import ALL_KERNELS, SANITIZER_ERRORS, Step
from benchmarks.gpu.worker import DEVICE_LOST
from benchmarks.gpu.worker import STAGES as WORKERS
from mobilevit_fast.files import write_atomically

LOG_CHARACTERS = 2_000_000
WORKER_SHARE = 0.85
"""Share of a worker's limit that it may plan with: the rest is for what it cannot interrupt."""
MIN_SECONDS = 10.0
"""No worker is started for less."""
MIN_SECONDS_OF_A_STEP = 2.0
ATTEMPTS = 4
TAIL_OF_A_ROW, LONG_TAIL = 1500, 20_000
NO_TIME = "no time was left for it"

Runner = Callable[..., Outcome]


def run_stage(stage: str, steps: list[Step], results: Results, seconds: float, scratch: Path) -> str | None:
    """Run a stage's steps; returns why it is not whole, None if it is. Everything else is in the results."""
    queue = Queue(stage, seconds)
    if stage in WORKERS:
        return run_tasks(WORKERS[stage], steps, results, queue)
    return {"build": _build, "test": _test, "sanitize": _sanitize, "counters": _counters}[stage](
        steps, results, queue, scratch
    )


def _row(step: Step, outcome: Outcome) -> dict[str, Any]:
    return {"kind": "step", "step": step.name, "command": process.without_folders(step.text)} | {
        "seconds": round(outcome.seconds, 1),
        "code": outcome.code,
        "reason": outcome.reason,
    }


def _run(step: Step, queue: Queue) -> Outcome:
    limit = queue.limit(step.seconds)
    if limit < MIN_SECONDS_OF_A_STEP:
        return Outcome(None, NO_TIME, "", 0.0)
    return process.run(step.command, limit, step.env)


def _build(steps: list[Step], results: Results, queue: Queue, scratch: Path) -> str | None:
    for step in steps:
        outcome = _run(step, queue)
        results.append({**_row(step, outcome), "log": outcome.tail(LOG_CHARACTERS)})
        if outcome.reason:
            return f"{step.name}: {outcome.reason}"
    return None


def _test(steps: list[Step], results: Results, queue: Queue, scratch: Path) -> str | None:
    failed: list[str] = []
    red = False
    for step in steps:
        if step.condition and not red:
            continue
        outcome = _run(step, queue)
        row = _row(step, outcome) | counts(scratch / f"{step.name}.xml")
        results.append({**row, "tail": outcome.tail(LONG_TAIL)})
        if outcome.reason:
            red |= step.name == "cuda" and outcome.code is not None  # not where it took too long
            failed.append(f"{step.name}: {outcome.reason}")
        elif not row.get("passed"):
            failed.append(f"{step.name}: no test was run")
    return "; ".join(failed) or None


def counts(junit: Path) -> dict[str, int]:
    """Tests by their result, from pytest's file; none where there is no whole file."""
    try:
        suite = ElementTree.parse(junit).getroot().find("testsuite")
    except (OSError, ElementTree.ParseError):
        return {}
    if suite is None:
        return {}
    found = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    return {**found, "passed": found["tests"] - found["failures"] - found["errors"] - found["skipped"]}


def run_tasks(module: Any, steps: list[Step], results: Results, queue: Queue, run: Runner = process.run) -> str | None:
    """Run the workers of models or operators; a row that one owes has the reason why it is not there.

    The provider at work when a worker ended has the worker's reason, and another worker goes on with the others.
    """
    lost = 0
    for step, task in zip(steps, module.tasks(), strict=True):
        others = queue.left - queue.limit(step.seconds)  # what those after it are to have
        reason = NO_TIME
        for _ in range(ATTEMPTS):
            limit = queue.left - others
            if limit < MIN_SECONDS:
                break
            outcome = run((*step.command, f"{time.time() + WORKER_SHARE * limit:.1f}"), limit, step.env)
            running = results.load()["running"]
            results.update(running=None)
            owed = list(module.missing(task, results.rows))
            if not owed:
                break
            ending = outcome.reason or "the worker gave no row"
            if running in owed:
                results.append({**running, "reason": ending, "tail": outcome.tail(TAIL_OF_A_ROW)})
            elif outcome.code != DEVICE_LOST:  # nobody in particular: once more would end the same way
                reason = ending
                break
        for key in module.missing(task, results.rows):
            results.append({**key, "reason": reason})
        keys = list(module.missing(task, []))
        lost += sum(1 for row in results.rows if row["reason"] and any(key.items() <= row.items() for key in keys))
    return f"{lost} rows without a measurement, each with its reason" if lost else None


def _sanitize(steps: list[Step], results: Results, queue: Queue, scratch: Path) -> str | None:
    failed: list[str] = []
    began: dict[str, bool] = {}
    for step in steps:
        if step.condition and began.get(step.name.removesuffix(ALL_KERNELS)):
            continue
        outcome = _run(step, queue)
        found = errors_found(outcome.output)
        began[step.name] = found is not None or outcome.code in (0, SANITIZER_ERRORS, None)
        row = _row(step, outcome)
        if outcome.code == 0 and found is None:
            row["reason"] = "the tool gave no summary"
        results.append({**row, "errors": found, "tail": outcome.tail()})
        if row["reason"]:
            failed.append(f"{step.name}: {row['reason']}")
    return "; ".join(failed) or None


def errors_found(output: str) -> int | None:
    """Errors, or hazards, by compute-sanitizer's summaries; None where it gave none."""
    found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", output)
    return sum(map(int, found)) if found else None


def _counters(steps: list[Step], results: Results, queue: Queue, scratch: Path) -> str | None:
    reason: str | None = None
    for step in steps:
        if step.condition and reason is None:
            break
        outcome = _run(step, queue)
        table = table_of(outcome.output)
        kernels = list(kernels_of(table))
        reason = None if kernels else why_no_counters(outcome)
        results.append({**_row(step, outcome), "reason": reason, "kernels": len(kernels), "tail": outcome.tail()})
        for kernel in kernels:
            results.append({"kind": "kernel", "step": step.name, **kernel, "reason": None})
        if kernels:
            write_atomically(results.path.parent / "counters.csv", table.encode())
        if outcome.code is None and not outcome.output:
            break  # it is not there, and will not be for the next
    return reason


def table_of(output: str) -> str:
    """The table within what ncu and the program that it watches printed."""
    lines = output.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    return "".join(f"{line}\n" for line in lines[begin:] if line.startswith('"'))


def kernels_of(table: str) -> Iterator[dict[str, Any]]:
    """A kernel and its counters for each line of ncu's table, whose second line has the units."""
    for i, line in enumerate(csv.DictReader(io.StringIO(table))):
        if i == 0 and not line["ID"]:
            continue
        counters = {name: _number(value) for name, value in line.items() if name and ("__" in name or "launch" in name)}
        where = {
            "kernel": line["Kernel Name"][:300],
            "blocks": line.get("Grid Size"),
            "threads": line.get("Block Size"),
        }
        yield {**where, "counters": {name: value for name, value in counters.items() if value is not None}}


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def why_no_counters(outcome: Outcome) -> str:
    """Why ncu gave no kernel, in words."""
    if "ERR_NVGPUCTRPERM" in outcome.output:
        return "the driver does not permit this user to read counters (ERR_NVGPUCTRPERM)"
    errors = [line for line in outcome.output.splitlines() if line.startswith("==ERROR==")]
    if errors:
        return process.without_folders(errors[0].removeprefix("==ERROR=="))
    return outcome.reason or "ncu saw no kernel"
