"""The CUDA kernels through nvcc, where there is one: for every architecture, without a spilled register."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

SOURCES = sorted((REPOSITORY / "csrc/cuda").glob("*.cu"))
ARCHITECTURES = ("80", "90a", "120")
KERNELS = {
    "classifier_head.cu": 4,
    "conv2d_bias_act.cu": 20,
    "conv2d_stem.cu": 4,
    "depthwise_conv2d.cu": 24,
    "inverted_residual.cu": 108,
    "mobilevit_transformer.cu": 6,
    "resize.cu": 2,
}
"""How many kernels of a file the compiler has to have told of, so that a change of its words does not go unseen."""


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_register_is_spilled(source: Path, architecture: str, tmp_path: Path) -> None:
    folders = [f"-I{REPOSITORY / folder}" for folder in ("csrc/include", "csrc/cuda")]
    code = ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    command = ["nvcc", "-std=c++17", "-O3", "-Xptxas", "-v", *code, *folders, "-c", source, "-o", tmp_path / "object.o"]
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # the sanitizers' library
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "warning" not in result.stderr, result.stderr[-4000:]
    found = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", result.stderr)
    assert len(found) >= KERNELS.get(source.name, 1)
    assert set(found) == {("0", "0", "0")}


def test_every_architecture_of_the_build_is_compiled() -> None:
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    setting = re.search(r'set\(MVF_CUDA_ARCHITECTURES "([^"]+)"', text)
    assert setting is not None
    assert setting[1].split(";") == list(ARCHITECTURES)
