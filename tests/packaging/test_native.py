"""A missing or broken native library is a status with a reason; the package works without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mobilevit_fast
from mobilevit_fast import native

PACKAGE = Path(mobilevit_fast.__file__).parent

PROBE = """
import torch
from mobilevit_fast import native, ops
for name, library in native.status().items():
    print(name, library.loaded, library.reason)
x, weight = torch.ones(1, 8, 4, 4), torch.ones(8, 1, 3, 3)
print("sum", ops.depthwise_conv2d(x, weight, padding=1).sum().item())
try:
    ops.depthwise_conv2d(x, weight, backend="cpu")
except ValueError as error:
    print("refused:", error)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package without its libraries, in a folder of its own."""
    shutil.copytree(PACKAGE, tmp_path / "mobilevit_fast", ignore=shutil.ignore_patterns("*.so", "__pycache__", "data"))
    return tmp_path


def run_in(folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", PROBE]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=True)
    assert result.stderr == ""
    return result.stdout


def test_loading_again_changes_nothing() -> None:
    before = native.status()
    native.load()
    assert native.status() == before


def test_every_library_that_was_built_loads() -> None:
    for name, library in native.status().items():
        assert library.loaded or name == "cuda", f"{name}: {library.reason}"


def test_without_libraries_the_reference_runs(copy: Path) -> None:
    output = run_in(copy)
    assert "cpu False libmobilevit_fast_cpu.so was not built" in output
    assert "_C False it needs the CPU library" in output
    assert "cuda False" in output
    assert "sum 800.0" in output
    assert "refused: mobilevit_fast.depthwise_conv2d: cpu: the CPU library is not loaded" in output


def test_a_broken_library_is_reported_with_the_reason(copy: Path) -> None:
    (copy / "mobilevit_fast" / "_lib").mkdir(exist_ok=True)
    (copy / "mobilevit_fast" / "_lib" / "libmobilevit_fast_cpu.so").write_bytes(b"no library at all")
    output = run_in(copy)
    assert "cpu False it does not load with torch" in output
    assert "sum 800.0" in output
