"""Writers that are killed with SIGKILL, at every step and at random moments: what is there then is one whole state."""

import itertools
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from mobilevit_fast.checkpoints import read_checkpoint, write_checkpoint
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.files import encoded_picture, write_atomically
from mobilevit_fast.image_processing import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification
from tests.checkpoints.helpers import assert_same_tensors
from tests.checkpoints.test_writing import SMALL, contents, small_model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")

KILLS = 60
LONGEST_DELAY = 2.5  # times what one save takes
SHORTEST_SAVE = 0.005  # seconds, with what it takes to fork
DEADLINE = 20.0  # seconds


class Kind(NamedTuple):
    """A kind of save: `write` puts state 0 or 1 into a folder, `read` gives the state that is there or fails."""

    write: Callable[[Path, int], object]
    read: Callable[[Path], int]


# Tensors this small are copied without threads, which a forked process has none of.
MODELS = [small_model(labels=3, heads=4, seed=0), small_model(labels=5, heads=2, seed=1)]
ALIKE = [small_model(seed=0), small_model(seed=1)]
PROCESSORS = [MobileViTImageProcessor(size=30 + state) for state in range(2)]
CONFIGS = [MobileViTConfig(**SMALL, num_labels=3 + state) for state in range(2)]  # type: ignore[arg-type]
PICTURES = [Image.fromarray(np.random.default_rng(state).integers(0, 256, (90, 90, 3), np.uint8)) for state in range(2)]


def model_state(folder: Path, models: list[MobileViTForImageClassification]) -> int:
    """Which of two models a folder holds, with all that belongs to it."""
    checkpoint = read_checkpoint(folder)
    loaded = checkpoint.state_dict
    for state, model in enumerate(models):
        if loaded["classifier.bias"].equal(model.classifier.bias):
            assert_same_tensors(loaded, model.state_dict())
            expected = MobileViTConfig.from_dict(model.config.to_dict())
            expected.architectures, expected.dtype = ["MobileViTForImageClassification"], torch.float32
            assert checkpoint.config == expected
            return state
    raise AssertionError("the weights are those of no model")


def processor_state(folder: Path) -> int:
    return MobileViTImageProcessor.from_pretrained(folder).size["shortest_edge"] - 30


def converted_state(folder: Path) -> int:
    assert processor_state(folder) in (0, 1)
    return model_state(folder, MODELS)


def picture_state(folder: Path) -> int:
    with Image.open(folder / "overlay.png") as picture:
        pixels = np.array(picture)
    return next(state for state, one in enumerate(PICTURES) if np.array_equal(pixels, np.array(one)))


KINDS = {
    "model": Kind(
        lambda folder, state: MODELS[state].save_pretrained(folder), lambda folder: model_state(folder, MODELS)
    ),
    "weights": Kind(
        lambda folder, state: ALIKE[state].save_pretrained(folder), lambda folder: model_state(folder, ALIKE)
    ),
    "converted": Kind(
        lambda folder, state: write_checkpoint(MODELS[state], folder, "timm", PROCESSORS[state]), converted_state
    ),
    "config": Kind(
        lambda folder, state: CONFIGS[state].save_pretrained(folder),
        lambda folder: MobileViTConfig.from_pretrained(folder).num_labels - 3,
    ),
    "processor": Kind(lambda folder, state: PROCESSORS[state].save_pretrained(folder), processor_state),
    "picture": Kind(
        lambda folder, state: write_atomically(folder / "overlay.png", encoded_picture(PICTURES[state], "PNG")),
        picture_state,
    ),
}


def forked(work: Callable[[], object]) -> int:
    """The process id of a child that does this and nothing else, and ends with status 0 if it comes to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def wait(child: int) -> int:
    """How a child ended: its exit status, or minus the signal. One that hangs is killed and fails the test."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the writer did not end within {DEADLINE} seconds")


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that can be: what a killed process wrote is there either way, and this is faster."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.mark.parametrize("name", KINDS)
def test_killed_at_random_moments(name: str, folder: Path) -> None:
    kind, moments = KINDS[name], random.Random(0)
    start = time.monotonic()
    kind.write(folder, 0)
    longest = max(LONGEST_DELAY * (time.monotonic() - start), SHORTEST_SAVE)
    names = sorted(path.name for path in folder.iterdir())
    seen = [0]

    def write_on_and_on() -> None:
        for state in itertools.count(seen[-1] + 1):
            kind.write(folder, state % 2)

    while len(seen) <= KILLS or (len(set(seen)) == 1 and len(seen) < 10 * KILLS):
        child = forked(write_on_and_on)
        time.sleep(moments.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
        seen.append(kind.read(folder))
    assert set(seen) == {0, 1}
    kind.write(folder, 0)
    assert sorted(path.name for path in folder.iterdir()) == names  # leftovers are gone


def dying_at(step: int, write: Callable[[], object]) -> None:
    """Kill this process at so many-th call that changes something on the disk, half-way through where it writes."""
    left = step

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if function is write_bytes:
                    write_bytes(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    write_bytes = Path.write_bytes
    Path.write_bytes = counted(write_bytes)  # type: ignore[method-assign]
    for name in ("open", "fsync", "replace", "unlink", "close"):
        setattr(os, name, counted(getattr(os, name)))
    write()


@pytest.mark.parametrize("name", KINDS)
def test_killed_at_every_step(name: str, folder: Path) -> None:
    kind = KINDS[name]
    kind.write(folder, 0)
    first = contents(folder)
    seen, status = [], -signal.SIGKILL
    while status != 0:
        for path in folder.iterdir():
            path.unlink()
        for file_name, content in first.items():
            (folder / file_name).write_bytes(content)
        step = len(seen) + 1
        status = wait(forked(lambda step=step: dying_at(step, lambda: kind.write(folder, 1))))
        assert status in (0, -signal.SIGKILL)
        seen.append(kind.read(folder))
    assert len(seen) > 8  # at least: one file created, written, put on the disk and renamed, and the folder twice
    assert seen == sorted(seen)  # the old state up to some step, the new one from there on
