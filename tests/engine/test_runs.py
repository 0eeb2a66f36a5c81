"""Runs over sources: what makes two of them the same work, what bounds one, what it holds, and what ends it."""

import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from mobilevit_fast.engine import Engine, Prediction
from mobilevit_fast.engine.results import ResultsFolder
from mobilevit_fast.engine.sources import Source, iterate, take
from mobilevit_fast.engine.statistics import Statistics
from mobilevit_fast.engine.writing import Writer
from testing.pairs import tiny_config
from testing.paths import REPOSITORY
from testing.tiers import thorough
from tests.engine.engines import KEEPING, PROCESSOR
from tests.engine.pictures import encoded, picture, written
from tests.integrations import zoo

PHOTOS = [encoded(picture(64, 64, i)) for i in range(4)]


class Failing(nn.Module):
    """A model that raises an error for every image."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"},
        {"num_attention_heads": 2},
        {"layer_norm_eps": 0.1},
        {"patch_size": 4},
    ],
    ids=str,
)
def test_the_same_weights_in_another_architecture_are_other_work(change: dict[str, Any], tmp_path: Path) -> None:
    model, other = zoo.native(tiny_config()), zoo.native(tiny_config(**change))
    other.load_state_dict(model.state_dict())
    Engine(model, PROCESSOR).run(PHOTOS, tmp_path, format="jsonl")
    with pytest.raises(ValueError, match="settings"):
        Engine(other, PROCESSOR).run(PHOTOS, tmp_path, format="jsonl")
    assert Engine(model, PROCESSOR).run(PHOTOS, tmp_path, format="jsonl").skipped == 4


@pytest.mark.parametrize("kind", ["native", "transformers", "timm"])
def test_the_work_is_the_same_whether_the_model_is_accelerated_or_not(kind: str) -> None:
    prints = [Engine(zoo.SMALL[kind](), PROCESSOR, acceleration=one).fingerprint()["settings"] for one in (True, False)]
    assert prints[0] == prints[1]


def test_a_model_that_normalizes_for_another_processor_is_given_numbers() -> None:
    others = mvf.MobileViTImageProcessor(
        size={"shortest_edge": 64}, crop_size=64, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.2] * 3
    )
    expected = Engine(zoo.SMALL["native"](), KEEPING)(PHOTOS)
    model = mvf.accelerate(zoo.SMALL["native"](), uint8_images=others)
    engine = Engine(model, KEEPING)
    assert not engine.model.takes_uint8
    assert torch.equal(engine(PHOTOS), expected)
    same = Engine(model, others)
    assert same.model.takes_uint8
    torch.testing.assert_close(same(PHOTOS), Engine(zoo.SMALL["native"](), others)(PHOTOS), rtol=1e-4, atol=1e-4)


def test_threads_that_wait_bound_a_run_as_well(tmp_path: Path) -> None:
    def slowly(content: bytes) -> Callable[[], bytes]:
        return lambda: (time.sleep(0.05), content)[1]

    engine = Engine(zoo.SMALL["native"](), KEEPING, decode_threads=1)
    slow = [Source(str(i), slowly(PHOTOS[i % 4])) for i in range(24)]
    assert engine.run(slow, tmp_path / "slow", format="jsonl").bound_by == "read"

    def found() -> Iterator[bytes]:
        for photo in PHOTOS * 3:
            time.sleep(0.05)
            yield photo

    made = engine.run(found(), tmp_path / "found", format="jsonl")
    assert (made.bound_by, made.stages["find"]["images"]) == ("find", 12)


def test_what_bounds_is_busy_or_takes_most_of_the_cores() -> None:
    statistics = Statistics()
    for name, seconds in {"find": 0.1, "read": 0.2, "decode": 0.2, "resize": 0.1, "forward": 0.5, "write": 0.7}.items():
        statistics.stages[name].seconds = statistics.stages[name].core_seconds = seconds
    assert statistics.bound_by(1.0, shared=True) == "forward"
    assert statistics.bound_by(1.0, shared=False) == "write"
    statistics.stages["write"].seconds = 0.9
    assert statistics.bound_by(1.0, shared=True) == "write"


def tar_of(folder: Path, count: int) -> Path:
    path = folder / "photos.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            info = tarfile.TarInfo(f"{i:04}.png")
            info.size = len(PHOTOS[0])
            tar.addfile(info, io.BytesIO(PHOTOS[0]))
    return path


def test_few_contents_are_held_before_the_threads_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("engine", "stream"):
        monkeypatch.setattr(f"mobilevit_fast.engine.{module}._MAX_HELD", 3 * len(PHOTOS[0]))
    engine = Engine(zoo.SMALL["native"](), KEEPING, batch_sizes=(16,), decode_threads=2)
    loaded = 0

    def counted() -> Iterator[Source]:
        nonlocal loaded
        for source in iterate(tar_of(tmp_path, 100)):
            loaded += 1
            yield source

    most = 0
    for answered, (_, row) in enumerate(engine.answers(counted(), Statistics(), peek=True)):
        assert not isinstance(row, str)
        most = max(most, loaded - answered)
    assert loaded == 100
    assert most <= 3 * (engine.plan(None).slots + 2)


def test_sources_before_an_error_are_taken() -> None:
    def two() -> Iterator[Source]:
        yield Source("a", b"1")
        yield Source("b", b"22")
        raise OSError("gone")

    found: list[Source] = []
    with pytest.raises(OSError, match="gone"):
        take(two(), found, 5, 100)
    assert [one.name for one in found] == ["a", "b"]
    assert [take(iter(found), [], *bounds) for bounds in ((2, 100), (5, 3), (3, 100))] == [False, False, True]


def test_paths_of_the_standard_input_are_answered_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = written(tmp_path, {"a.png": PHOTOS[0]})
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", buffering=0) as pipe:
        monkeypatch.setattr("sys.stdin", stdin)
        pipe.write(f"{path}\n".encode())
        answers = Engine(zoo.SMALL["native"](), KEEPING, batch_sizes=(1,), decode_threads=2).stream(["-"])
        assert next(answers).source == str(path)
        pipe.close()
        assert [*answers] == []


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_lost_device_ends_a_run_and_is_no_failed_image(batch_size: int, tmp_path: Path) -> None:
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    engine = Engine(Failing(lost), KEEPING, batch_sizes=(batch_size,), acceleration=False, decode_threads=1)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        engine.run(PHOTOS, tmp_path, format="jsonl")
    assert [*mvf.engine.read_results(tmp_path)] == []


def test_a_model_that_fails_for_all_images_alike_ends_a_run(tmp_path: Path) -> None:
    engine = Engine(Failing(ValueError("no logits")), KEEPING, batch_sizes=(4,), acceleration=False, decode_threads=1)
    with pytest.raises(ValueError, match="no logits"):
        engine.run(PHOTOS, tmp_path, format="jsonl")
    assert [*mvf.engine.read_results(tmp_path)] == []


def test_an_error_of_writing_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ResultsFolder, prediction: Prediction) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ResultsFolder, "add", full)
    engine = Engine(zoo.SMALL["native"](), KEEPING, decode_threads=2)
    arrays = [np.asarray(picture(64, 64, i)) for i in range(3)]
    with pytest.raises(OSError, match="No space left"):
        engine.run(arrays, tmp_path / "few", format="jsonl")
    given = 0

    def many() -> Iterator[np.ndarray]:
        nonlocal given
        for _ in range(100_000):
            given += 1
            yield arrays[0]

    with pytest.raises(OSError, match="No space left"):
        engine.run(many(), tmp_path / "many", format="jsonl")
    assert given < 1000


def test_answers_are_written_by_a_thread_of_its_own_in_order() -> None:
    class Results:
        def __init__(self) -> None:
            self.names: list[str] = []
            self.threads: set[str] = set()

        def add(self, prediction: Prediction) -> None:
            self.names.append(prediction.source)
            self.threads.add(threading.current_thread().name)

    results: Any = Results()
    names = [str(i) for i in range(1000)]
    writer = Writer(results)

    def interrupted() -> None:
        with writer:
            for name in names:
                writer.add(Prediction(name))
            raise KeyboardInterrupt  # what was added is written all the same

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert results.names == names
    assert results.threads == {"mobilevit_fast write"}
    assert writer.watch.images == 1000


KILLED = """
import functools, os, sys
from mobilevit_fast.engine import Engine, engine
from tests.engine.engines import KEEPING
from tests.integrations import zoo

engine.ResultsFolder = functools.partial(engine.ResultsFolder, part_rows=7)
made = Engine(zoo.SMALL["native"](), KEEPING, batch_sizes=(4,), decode_threads=2)
made.run(sys.argv[1], sys.argv[2], format="jsonl", progress=lambda one: os.write(1, b"."))
"""
"""A run that writes small parts and says each answer."""


@pytest.mark.parametrize("kills", [3, thorough(30)])
def test_a_run_that_is_killed_again_and_again_answers_everything_once(kills: int, tmp_path: Path) -> None:
    """A folder of which each 20th image is broken."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    files = {f"{i:04}.png": PHOTOS[i % 4] if i % 20 else b"broken" for i in range(60 * kills)}
    written(photos, files)
    moments = random.Random(0)
    for _ in range(kills):
        command = [sys.executable, "-c", KILLED, str(photos), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
            assert process.stdout is not None
            said = process.stdout.read(moments.randrange(20, 100))
            process.kill()
        assert said
        assert process.returncode == -signal.SIGKILL
    engine = Engine(zoo.SMALL["native"](), KEEPING)
    report = engine.run(photos, out, format="jsonl")
    assert report.skipped > 0
    rows = [*mvf.engine.read_results(out)]
    assert sorted(row["source"] for row in rows) == sorted(str(photos / name) for name in files)
    assert {Path(row["source"]).name for row in rows if row["error"]} == {n for n in files if files[n] == b"broken"}


def test_weights_that_are_no_plain_tensors_have_a_fingerprint() -> None:
    """Packed ones of quantised modules, sparse ones, and what modules add of their own."""

    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.state: Any = {"scale": 1}

        def get_extra_state(self) -> Any:
            return self.state

        def set_extra_state(self, state: Any) -> None:
            self.state = state

    model = zoo.SMALL["native"]()
    model.extra = Extra()
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    engine = Engine(model, PROCESSOR)
    before = engine.fingerprint()
    assert engine.fingerprint() == before
    model.extra.state = {"scale": 2}
    assert engine.fingerprint()["weights"] != before["weights"]
