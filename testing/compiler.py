"""The compiler of tests that build native programs, and a way to run those."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from testing.paths import REPOSITORY

INCLUDE = ["-I", str(REPOSITORY / "csrc")]
# Looking for leaks does not work in every container, and the kernels allocate nothing.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """The finished process, whether it succeeded or not, with what it wrote."""
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=600
    )


def compiler_path() -> str:
    """The system's C++ compiler; skips where there is none."""
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if found is None:
        pytest.skip("there is no C++ compiler named c++, g++ or clang++")
    return found


def is_clang(path: str) -> bool:
    """Whether a compiler is clang, and else it is gcc."""
    return "clang" in run(path, "--version").stdout


def compiler_with(flags: Sequence[str], folder: Path) -> list[str]:
    """The compiler with flags; skips where what they make does not run."""
    compiler = [compiler_path(), *flags]
    source, program = folder / "empty.cpp", folder / "empty"
    source.write_text("int main() {}\n")
    for command in ([*compiler, source, "-o", program], [program]):
        result = run(*command)
        if result.returncode != 0:
            pytest.skip(f"no programs with {flags[0]} here: {(result.stdout + result.stderr).strip()[:200]}")
    return compiler
