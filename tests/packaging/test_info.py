"""``python -m mobilevit_fast.info``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from mobilevit_fast import info, native
from mobilevit_fast.ops import OPS
from testing.paths import REPOSITORY


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "mobilevit_fast.info", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_json_holds_what_collect_returns() -> None:
    printed, collected = json.loads(run("--json")), info.collect()
    assert printed.keys() == collected.keys()
    for same in ("versions", "platform", "libraries", "build", "operators"):
        assert printed[same] == collected[same], same


def test_collect() -> None:
    collected = info.collect()
    assert collected["versions"]["torch"] == torch.__version__
    assert collected["versions"]["mobilevit_fast"] is not None
    assert collected["devices"][0]["name"] == "cpu"
    assert set(collected["libraries"]) == {"cpu", "cuda", "_C"}
    assert set(collected["operators"]) == set(OPS)
    for backends in collected["operators"].values():
        assert backends[-1] == "reference"
    assert ("cpu" in collected["operators"]["depthwise_conv2d"]) == native.status()["cpu"].loaded


def test_a_library_that_is_not_loaded_has_a_reason() -> None:
    for library in info.collect()["libraries"].values():
        assert library["loaded"] == (library["reason"] is None)


def test_tables_name_everything() -> None:
    text = run()
    for word in ("torch", "Native libraries", "instruction sets", "depthwise_conv2d", *native.status()):
        assert word in text


def test_build_information_has_no_date() -> None:
    extension = native.extension()
    assert extension is not None, native.status()["_C"].reason
    first = extension.build_info()
    assert set(first) == {"version", "compiler", "flags", "torch_target", "torch_built_with", "cuda"}
    assert first["torch_target"] == "2.11"


def test_the_package_runs_as_a_module() -> None:
    """With the very package that this interpreter imports, where a console script may find another."""
    command = [sys.executable, "-m", "mobilevit_fast", "info", "--json"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["versions"]["torch"] == torch.__version__


def test_attributes_are_compared_by_their_descriptor() -> None:
    extension = native.extension()
    tensors = [torch.zeros(2), torch.nn.Parameter(torch.zeros(3)), torch.zeros(0)]
    versions = [tensor._version for tensor in tensors]
    version = torch.Tensor._version
    assert extension.attributes_equal(version, tensors, versions)
    tensors[1].data += 1  # has a counter of its own
    assert extension.attributes_equal(version, tensors, versions)
    tensors[2].add_(1)
    assert not extension.attributes_equal(version, tensors, versions)
    assert not extension.attributes_equal(version, tensors, versions[:2])
    for wrong in ((1, tensors, versions), (version, tuple(tensors), versions), (version, [1, 2, 3], versions)):
        with pytest.raises(TypeError):
            extension.attributes_equal(*wrong)
