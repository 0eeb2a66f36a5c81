"""Pickles of PyTorch take no more time and memory than their size allows, and what models are saved with is read."""

import argparse
import json
import subprocess
import sys
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilevit_fast.checkpoints import CheckpointError, read_checkpoint
from testing.paths import REPOSITORY
from tests.checkpoints.helpers import assert_one_line, assert_same_tensors
from tests.checkpoints.test_writing import small_model
from tests.robustness.hostile_pickles import ARCHIVES, LARGE, OLDER, entry, storage, tensor, write_older
from tests.robustness.mutations import SECONDS


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as on Linux")
def test_small_files_that_have_no_end() -> None:
    command = [sys.executable, "-m", "tests.robustness.hostile_pickles"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in outcomes] == [*ARCHIVES, *OLDER]
    for name, size, outcome, seconds in outcomes:
        assert outcome == "refused", name
        assert seconds < SECONDS, name
        assert size < 1500 or name in LARGE, name


def test_a_tensor_beyond_its_storage(tmp_path: Path) -> None:
    for size, stride, fits in (([2, 2], [2, 1], True), ([2, 2], [3, 1], False), ([0, 9], [9, 1], True)):
        write_older(tmp_path / "a.pth", entry(tensor(size, stride, storage(rest=b"N"))))
        with pytest.raises(CheckpointError, match="not a MobileViT" if fits else "complete PyTorch file") as error:
            read_checkpoint(tmp_path / "a.pth")
        assert_one_line(error)


def everything() -> dict[str, Any]:
    """What training scripts save beside a state dict."""
    betas = (0.9, 0.999)
    parameter = torch.nn.Parameter(torch.rand(3))
    parameter.note = "of a parameter"  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW([{"params": [parameter]}, {"params": [torch.nn.Parameter(torch.rand(2))]}])
    parameter.sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "best": (0.5, None, True, 2**70, -1.5),
        "optimizer": optimizer.state_dict(),
        "groups": [{"betas": betas}, {"betas": betas}],
        "milestones": Counter({10: 1, 20: 2}),
        "history": OrderedDict([("loss", [1.0, 2.0]), (("a", 1), [])]),
        "seen": {1, 2, "x"},
        "bytes": "é and \0".encode(),
        "others": [1 + 2j, torch.Size([2, 3]), torch.device("cpu"), torch.float16, parameter],
        "views": [parameter.detach()[1:], parameter.detach()[:1].expand(5), torch.empty(0, 4), torch.tensor(3)],
        "types": [torch.zeros(2, dtype=torch.uint16), torch.zeros(2, dtype=torch.float8_e4m3fn)],
    }


@pytest.mark.parametrize("archive", [True, False])
def test_what_is_saved_beside_a_state_dict(tmp_path: Path, archive: bool) -> None:
    state_dict = small_model().state_dict()
    content = everything() | {"state_dict": state_dict}
    if not archive:  # torch.load itself does not read these from the older format
        del content["types"]
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    assert_same_tensors(read_checkpoint(tmp_path / "a.pth").state_dict, state_dict)
    for mmap in (True, False):
        assert_same_tensors(read_checkpoint(tmp_path / "a.pth", mmap=mmap).state_dict, state_dict)


def test_classes_that_were_declared_safe(tmp_path: Path) -> None:
    state_dict = small_model().state_dict()
    torch.save({"state_dict": state_dict, "args": argparse.Namespace(lr=torch.ones(()))}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"got one that needs argparse\.Namespace"):
        read_checkpoint(tmp_path / "a.pth")
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert_same_tensors(read_checkpoint(tmp_path / "a.pth").state_dict, state_dict)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), NameError()]
)
def test_what_is_no_damage_is_not_called_so(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    torch.save(small_model().state_dict(), tmp_path / "a.pth")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)) as raised:
        read_checkpoint(tmp_path / "a.pth")
    assert raised.value is error


class _Called(argparse.Namespace):
    """A namespace that is pickled as one called with arguments."""

    def __reduce__(self) -> Any:
        return argparse.Namespace, ({"a": 1},)


def _itself() -> argparse.Namespace:
    namespace = argparse.Namespace()
    namespace.itself = [namespace]
    return namespace


def _with_a_number() -> argparse.Namespace:
    namespace = argparse.Namespace()
    vars(namespace)[3] = 4  # type: ignore[index]
    return namespace


@pytest.mark.parametrize("archive", [True, False])
def test_namespaces_of_plain_values_are_read(tmp_path: Path, archive: bool) -> None:
    state_dict = small_model().state_dict()
    plain = argparse.Namespace(a=1, b="x", c=[None, True, (1.5, {"d": 2**70, "e": ()})], f=argparse.SUPPRESS)
    content = {"state_dict": state_dict, "args": plain, "again": [plain, argparse.Namespace()]}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    before = set(torch.serialization.get_safe_globals())
    for mmap in (True, False):
        assert_same_tensors(read_checkpoint(tmp_path / "a.pth", mmap=mmap).state_dict, state_dict)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    "namespace",
    [
        argparse.Namespace(tensor=torch.zeros(1)),
        argparse.Namespace(inner=argparse.Namespace()),
        argparse.Namespace(type=torch.float32),
        argparse.Namespace(action=[{"a": {1, 2}}]),
        _itself(),
        _with_a_number(),
        _Called(),
    ],
    ids=["tensor", "namespace", "type", "set", "itself", "number", "called"],
)
def test_others_are_not(tmp_path: Path, namespace: argparse.Namespace, archive: bool) -> None:
    content = {"state_dict": small_model().state_dict(), "args": namespace}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(CheckpointError, match=r"got one that needs argparse\.Namespace") as error:
        read_checkpoint(tmp_path / "a.pth")
    assert_one_line(error)


def test_namespaces_in_several_threads(tmp_path: Path) -> None:
    state_dict = small_model().state_dict()
    torch.save({"state_dict": state_dict, "args": argparse.Namespace(a=1)}, tmp_path / "a.pth")
    with ThreadPoolExecutor(8) as pool:
        for checkpoint in pool.map(lambda _: read_checkpoint(tmp_path / "a.pth"), range(32)):
            assert_same_tensors(checkpoint.state_dict, state_dict)
