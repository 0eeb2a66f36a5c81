"""The tiers of the tests: ``python -m testing.suites quick|test|all|rest`` and single suites by their names.

A suite is cut into parts, processes of their own: emulated CUDA kernels need AddressSanitizer in the process from its
start, Triton's interpreter a variable. There are few, since each imports and collects for ten seconds. As many run at
once as there are cores, the longest first. The output of a part appears when it ends, and at the end come the times of
all parts and the slowest tests.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from testing.paths import REPOSITORY

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
NO_TESTS = 5
"""Exit status of pytest that chose none, which a slice may."""
SLOWEST = 20


class Suite(NamedTuple):
    """Tests that share a kind of process.

    Attributes:
        paths: where they are.
        seconds: that those take which are not cut off; the longest parts begin first.
        cuts: folders and files with a process of their own, by the seconds that they take.
        quick: those of `make test-quick`, as pytest's arguments.
        options: further arguments.
        environment: "", "interpreted" or "sanitized".
        slices: into which its thorough tests are cut; one takes a few minutes of a core.
    """

    paths: tuple[str, ...]
    seconds: int
    cuts: Mapping[tuple[str, ...], int] = {}
    quick: tuple[str, ...] = ()
    options: tuple[str, ...] = ("-p", "no:benchmark")
    environment: str = ""
    slices: int = 0


SUITES = {
    "triton": Suite(
        ("tests/triton",),
        seconds=75,
        quick=("tests/triton/test_operators.py", "-k", "inputs_are_not_changed or empty_batch or tf32"),
        environment="interpreted",
        slices=2,
    ),
    "emulator": Suite(
        ("tests/emulator", "tests/cuda"),
        seconds=260,
        quick=("tests/cuda/test_operators.py", "-k", "registration or empty"),
        environment="sanitized",
        slices=16,
    ),
    "package": Suite(
        ("tests",),
        seconds=120,
        cuts={
            ("tests/integrations",): 225,
            ("tests/benchmarks", "tests/docs", "tests/models", "tests/nn", "tests/packaging"): 200,
            ("tests/cli", "tests/engine"): 130,
            ("tests/native",): 105,
            ("tests/checkpoints",): 75,  # by itself: a fork takes as long as the process is large
        },
        quick=(
            *("tests/cli", "tests/nn", "tests/ops/test_operators.py", "tests/ops/test_supports.py", "tests/packaging"),
            *("tests/models/test_config.py", "tests/images/test_inputs.py", "tests/test_layers.py"),
            *("-m", "not slow and not thorough"),
        ),
        slices=3,
    ),
    "benchmarks": Suite(("benchmarks",), seconds=15, options=("--benchmark-disable",)),
}


class Part(NamedTuple):
    """A process: its name, its command, what it adds to the environment and the seconds that it takes, roughly."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}
    seconds: int = 0


class Result(NamedTuple):
    """How a part went; seconds by the clock and of processors."""

    part: Part
    status: int
    output: str
    wall: float
    cpu: float


@functools.cache
def _environment(kind: str) -> dict[str, str]:
    """One thread for each process, of which there are as many as cores; tests of threads ask for theirs.

    Fibers are stacks that AddressSanitizer does not know, and leaks are not what sanitized tests look for.
    """
    if kind != "sanitized":
        return {"OMP_NUM_THREADS": "1"} | ({"TRITON_INTERPRET": "1"} if kind == "interpreted" else {})
    compiler = os.environ.get("CXX", "c++").split()
    names = ("libasan.so", "libstdc++.so")
    if shutil.which(compiler[0]) is None:
        return {}
    found = [subprocess.check_output([*compiler, f"-print-file-name={name}"], text=True).strip() for name in names]
    if not all(map(os.path.isabs, found)):
        print(
            f"note: {compiler[0]} has no {' or '.join(names)}: emulated kernels run without sanitizers", file=sys.stderr
        )
        return {}
    return {"LD_PRELOAD": " ".join(found), "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}


def _pytest(name: str, suite: Suite, arguments: Sequence[str], seconds: int = 0) -> Part:
    command = (sys.executable, "-m", "pytest", "-q", f"--durations={SLOWEST}", "--durations-min=2")
    return Part(name, (*command, *suite.options, *arguments), _environment(suite.environment), seconds)


def lint() -> list[Part]:
    """Format, style and types, in one process after the other."""
    tools = Path(sys.executable).parent
    folders = [REPOSITORY / name for name in ("csrc", "emulator", "tests/native", "tests/cuda")]
    cxx = [
        str(path) for folder in folders for path in folder.rglob("*") if path.suffix in {".cpp", ".h", ".cu", ".cuh"}
    ]
    commands: list[tuple[str, tuple[str, ...]]] = [
        ("ruff", ("ruff", "check", "-q", ".")),
        ("ruff format", ("ruff", "format", "-q", "--check", ".")),
        ("clang-format", ("clang-format", "--dry-run", "-Werror", *sorted(cxx))),
        ("mypy", ("mypy",)),
    ]
    return [Part(name, (str(tools / command[0]), *command[1:])) for name, command in commands]


def parts(name: str, marker: str) -> Iterator[Part]:
    """Those of a suite, with the tests that a marker's expression chooses."""
    suite = SUITES[name]
    for cut, seconds in suite.cuts.items():
        yield _pytest(f"{name}: {' '.join(cut)}", suite, (*cut, "-m", marker), seconds)
    cut_off = (f"--ignore={path}" for cut in suite.cuts for path in cut)
    paths = (path for path in _all_of(suite) if (path,) not in suite.cuts)  # what is named is not ignored
    rest = f"{name}: the rest" if suite.cuts else name
    yield _pytest(rest, suite, (*paths, *cut_off, "-m", marker), suite.seconds)


def _all_of(suite: Suite) -> Iterator[str]:
    """Its paths, without those of other suites below them."""
    yield from suite.paths
    below = tuple(f"{path}/" for path in suite.paths)
    yield from (f"--ignore={path}" for other in SUITES.values() for path in other.paths if path.startswith(below))


def slices(begin: int) -> list[Part]:
    """The thorough tests of every suite in slices, in turns, from another one for each value of ``begin``."""
    found = []
    for number in range(max(suite.slices for suite in SUITES.values())):
        for name, suite in SUITES.items():
            if number < suite.slices:
                arguments = (*_all_of(suite), "-m", "thorough", f"--slice={number}/{suite.slices}")
                found.append(_pytest(f"{name}, thorough {number + 1}/{suite.slices}", suite, arguments))
    begin %= len(found)
    return found[begin:] + found[:begin]


_printing = threading.Lock()


def run(part: Part) -> Result:
    """Run one, then print what it wrote."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        environment = {**os.environ, **part.environment}
        process = subprocess.Popen(
            part.command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    ended = process.returncode
    if ended == NO_TESTS and "--slice" in " ".join(part.command):
        ended = 0
    result = Result(part, ended, text, time.monotonic() - began, usage.ru_utime + usage.ru_stime)
    with _printing:
        print(f"\n=== {part.name}: {'passed' if ended == 0 else f'failed, status {ended}'} in {result.wall:.0f} s")
        print(text, flush=True)
    return result


def run_all(several: Sequence[Part], until: float) -> list[Result]:
    """All of them, as many at once as there are cores; none is begun after a time."""

    def begin(part: Part) -> Result | None:
        return run(part) if time.monotonic() < until else None

    with ThreadPoolExecutor(CORES) as pool:
        return [result for result in pool.map(begin, several) if result is not None]


def print_times(results: Sequence[Result], wall: float, skipped: int) -> None:
    """Times of everything, by part and by test."""
    slow = [
        (float(seconds), test)
        for result in results
        for seconds, test in re.findall(r"(?m)^([\d.]+)s (?:call|setup) +(.*)$", result.output)
    ]
    print(f"\n=== the {SLOWEST} slowest tests, seconds by the clock")
    for seconds, test in sorted(slow, reverse=True)[:SLOWEST]:
        print(f"{seconds:8.1f}  {test}")
    print("\n=== parts: seconds by the clock, of processors, result")
    for result in results:
        summary = re.findall(r"(?m)^=* ?(\d+ (?:passed|failed|error|skipped|deselected)[^=\n]*?)=*$", result.output)
        counts = summary[-1].strip() if summary else ""
        state = "" if result.status == 0 else f"FAILED ({result.status}) "
        print(f"{result.wall:7.0f} {result.cpu:7.0f}  {result.part.name}: {state}{counts}")
    cpu = sum(result.cpu for result in results)
    late = f", {skipped} parts not begun for want of time" if skipped else ""
    print(f"{wall:7.0f} {cpu:7.0f}  all, on {CORES} cores{late}")


def chosen(tier: str, begin: int) -> list[Part]:
    """The parts of a tier, the longest first."""
    if tier == "lint":
        return lint()
    if tier == "quick":
        quick = [_pytest(f"{name}, quick", suite, suite.quick) for name, suite in SUITES.items() if suite.quick]
        return quick + lint()
    if tier == "rest":
        return slices(begin)
    names = list(SUITES) if tier in ("test", "all") else [tier]
    found = sorted((part for name in names for part in parts(name, "not thorough")), key=lambda part: -part.seconds)
    return found + lint() * (len(names) > 1) + slices(begin) * (tier == "all")


def main() -> int:
    """Exit status: 0 if every part that was begun passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tier", choices=["lint", "quick", "test", "all", "rest", *SUITES])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no part is begun after these")
    parser.add_argument("--begin", type=int, default=0, help="the slice of the thorough tests to begin with")
    options = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells begin what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # some tests interrupt processes of their own
    began = time.monotonic()
    several = chosen(options.tier, options.begin)
    results = run_all(several, began + 60 * options.minutes)
    print_times(results, time.monotonic() - began, len(several) - len(results))
    return int(any(result.status for result in results))


if __name__ == "__main__":
    sys.exit(main())
