"""The parts that the tests are run in: every file is in one of them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from testing import suites
from testing.paths import REPOSITORY


def files_of(part: suites.Part) -> Iterator[str]:
    """Those that pytest takes: below a path that is named, and not below one that is ignored and not named."""
    paths = [argument for argument in part.command if argument.startswith(("tests", "benchmarks"))]
    ignored = [argument.removeprefix("--ignore=") for argument in part.command if argument.startswith("--ignore=")]
    for path in paths:
        found = [REPOSITORY / path] if path.endswith(".py") else (REPOSITORY / path).rglob("test_*.py")
        for file in found:
            name = str(file.relative_to(REPOSITORY))
            if not any(other not in paths and f"{name}/".startswith(f"{other}/") for other in ignored):
                yield name


@pytest.mark.parametrize("tier", ["test", "rest"])
def test_a_file_is_in_one_part(tier: str) -> None:
    parts = [part for part in suites.chosen(tier, 0) if "pytest" in part.command]
    folders = ["tests", "benchmarks"] if tier == "test" else ["tests"]  # benchmarks have no thorough tests
    expected = {str(path.relative_to(REPOSITORY)) for one in folders for path in (REPOSITORY / one).rglob("test_*.py")}
    found = Counter(file for part in parts for file in files_of(part))
    assert set(found) == expected
    slices = {file: {part.command[-1] for part in parts if file in files_of(part)} for file in expected}
    assert all(count == (len(slices[file]) if tier == "rest" else 1) for file, count in found.items())


def test_slices_are_whole() -> None:
    """Of as many as the suite says, each once, wherever it begins."""
    for begin in (0, 7):
        wanted = Counter(part.command[-1] for part in suites.slices(begin))
        expected = Counter(
            f"--slice={i}/{suite.slices}" for suite in suites.SUITES.values() for i in range(suite.slices)
        )
        assert wanted == expected


@pytest.mark.parametrize(("code", "status"), [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.abort()", -6)])
def test_a_part_that_fails_is_seen(code: str, status: int) -> None:
    result = suites.run(suites.Part("one", (sys.executable, "-c", code)))
    assert result.status == status


def test_tests_that_interrupt_pass_in_the_background() -> None:
    """Shells have what they begin there ignore interrupts, and so would the processes that tests make."""
    child = "import signal; assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN"
    code = f"""
import signal, sys
from testing import suites
suites.chosen = lambda *_: [suites.Part("one", (sys.executable, "-c", {child!r}))]
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(suites.main())
"""
    command = [sys.executable, "-c", code, "test"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
