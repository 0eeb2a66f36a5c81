"""Importing the package costs nothing it does not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["transformers", "timm", "torchvision", "triton", "matplotlib", "sklearn", "onnx", "onnxscript", "onnxruntime"]

PROBE = """
import json, sys
import torch
before = set(sys.modules)
import mobilevit_fast
print(json.dumps({"modules": sorted(set(sys.modules) - before), "cuda": torch.cuda.is_initialized()}))
"""


@pytest.fixture(scope="module")
def probe() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", PROBE], capture_output=True, text=True, check=True)


def test_import_prints_nothing(probe: subprocess.CompletedProcess[str]) -> None:
    assert probe.stderr == ""
    assert len(probe.stdout.splitlines()) == 1


@pytest.mark.parametrize("module", HEAVY)
def test_import_brings_in_no(module: str, probe: subprocess.CompletedProcess[str]) -> None:
    loaded = json.loads(probe.stdout)["modules"]
    assert not [name for name in loaded if name.split(".")[0] == module]


def test_import_does_not_initialise_cuda(probe: subprocess.CompletedProcess[str]) -> None:
    assert json.loads(probe.stdout)["cuda"] is False
