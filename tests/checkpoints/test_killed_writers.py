"""Writers that are killed with SIGKILL, at every step and at random moments: what is there then is one whole state."""

import json
import os
import random
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from mobilevit_fast.checkpoints import read_checkpoint, write_checkpoint
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.files import encoded_picture, write_atomically
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification
from testing.tiers import thorough, thorough_where
from tests.checkpoints.helpers import assert_same_tensors
from tests.checkpoints.killing import DEADLINE, contents, forked, in_place, killed_at_every_step, put, wait
from tests.checkpoints.test_writing import SMALL, small_model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked")

KILLS = 60
SAVES_AT_MOST = 2  # that a writer completes before it is killed


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
    state = model_state(folder, MODELS)
    assert processor_state(folder) == state
    assert MobileViTConfig.from_pretrained(folder) == read_checkpoint(folder).config
    return state


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


def foreign(folder: Path, state: int, weights: str = "model.safetensors") -> None:
    """What another library writes: its weights say nothing of the configuration, of which shapes do not show all."""
    write_checkpoint(MODELS[state], folder, processor=PROCESSORS[state])
    tensors = {name: tensor.contiguous() for name, tensor in MODELS[state].state_dict().items()}
    (folder / "model.safetensors").unlink()
    if weights == "pytorch_model.bin":
        torch.save(tensors, folder / weights)
        return
    (folder / weights).write_bytes(save(tensors, metadata={"format": "pt"}))
    if weights != "model.safetensors":
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, weights)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def undescribed(folder: Path, state: int) -> None:
    """Weights and nothing else."""
    MODELS[state].save_pretrained(folder)
    (folder / "config.json").unlink()


def edited(folder: Path, state: int) -> None:
    """A configuration that somebody changed by hand: the one inside the weights is not what counts."""
    MODELS[state].save_pretrained(folder)
    config = MODELS[state].config
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"layer_norm_eps": 1e-05', '"layer_norm_eps": 0.5'))
    assert read_checkpoint(folder).config.layer_norm_eps != config.layer_norm_eps


def edited_state(folder: Path) -> int:
    checkpoint = read_checkpoint(folder)
    state = [model.config.num_labels for model in MODELS].index(len(checkpoint.state_dict["classifier.bias"]))
    assert checkpoint.config.layer_norm_eps == (1e-5 if state else 0.5)
    return state


# Over what is written, by what, and what is there then. The old state is 0, whoever wrote it; the new one is 1.
OVERWRITES: dict[str, tuple[Callable[[Path, int], object], Kind]] = {
    **{name: (kind.write, kind) for name, kind in KINDS.items()},
    "foreign": (foreign, KINDS["converted"]),
    "foreign model": (foreign, KINDS["model"]),
    "pickled": (lambda folder, state: foreign(folder, state, "pytorch_model.bin"), KINDS["converted"]),
    "sharded": (lambda folder, state: foreign(folder, state, "model-1-of-1.safetensors"), KINDS["converted"]),
    "edited": (edited, Kind(KINDS["model"].write, edited_state)),
    "undescribed": (
        undescribed,
        Kind(KINDS["model"].write, lambda folder: len(read_checkpoint(folder).state_dict["classifier.bias"]) // 5),
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", KINDS)
def test_killed_at_random_moments(name: str, folder: Path) -> None:
    """Inside of calls, too. Moments are fractions of a save as the killed writer takes it, after 0 to 2 whole ones."""
    kind, moments = KINDS[name], random.Random(0)
    kind.write(folder, 0)
    names = sorted(path.name for path in folder.iterdir())
    state = 0
    for _ in range(KILLS):
        reading, writing = os.pipe()

        def write_on_and_on(first: int = state + 1, pipe: int = writing) -> None:
            for number in range(SAVES_AT_MOST + 2):
                os.write(pipe, b".")
                kind.write(folder, (first + number) % 2)
            time.sleep(DEADLINE)

        child = forked(write_on_and_on)
        start = time.monotonic()
        for _ in range(1 + moments.randrange(SAVES_AT_MOST + 1)):
            assert select.select([reading], [], [], DEADLINE)[0]
            os.read(reading, 1)
            start, last = time.monotonic(), start
        time.sleep(moments.random() * (start - last))
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
        for end in (reading, writing):
            os.close(end)
        state = kind.read(folder)
        assert state in (0, 1)
    kind.write(folder, 0)
    assert sorted(path.name for path in folder.iterdir()) == names  # leftovers are gone


@pytest.mark.parametrize("weights", [thorough("pytorch_model.bin"), "model-1-of-1.safetensors"])
def test_weights_that_others_put_in_the_place_of_a_killed_save_count(weights: str, folder: Path) -> None:
    KINDS["model"].write(folder, 0)
    files = contents(folder)
    foreign(folder, 0, weights)
    theirs = {name: content for name, content in contents(folder).items() if name not in files}
    put(folder, files)
    seen = []
    for _ in killed_at_every_step(folder, lambda: KINDS["model"].write(folder, 1)):
        seen.append(KINDS["model"].read(folder))
        for name in in_place(folder):
            (folder / name).unlink()
        for name, content in theirs.items():
            (folder / name).write_bytes(content)
        assert read_checkpoint(folder).state_dict["classifier.bias"].equal(MODELS[0].classifier.bias)
        (folder / "config.json").write_bytes(files["config.json"])
        assert KINDS["model"].read(folder) == 0
    assert set(seen) == {0, 1}


# Others save the same files ("converted", "edited") over the same files ("foreign"); shards have the test above.
LONGER = {"model", "foreign model", "pickled", "sharded"}


@pytest.mark.parametrize("name", thorough_where(OVERWRITES, LONGER.__contains__))
def test_killed_at_every_step(name: str, folder: Path) -> None:
    before, kind = OVERWRITES[name]
    before(folder, 0)
    files, old = contents(folder), in_place(folder)
    kind.write(folder, 1)
    new = in_place(folder)
    changed = {file_name for file_name in new if new[file_name] != old.get(file_name)}
    put(folder, files)
    seen = []
    for step in killed_at_every_step(folder, lambda: kind.write(folder, 1)):
        seen.append(kind.read(folder))
        assert len(seen) == step
        seen_by_others = in_place(folder)
        missing = old.keys() - seen_by_others.keys()
        assert missing <= ({"model.safetensors"} if len(changed) > 1 else set())
        if "model.safetensors" in seen_by_others or "model.safetensors" not in new:
            seen_by_others = {file_name: content for file_name, content in seen_by_others.items() if file_name in new}
            assert any(seen_by_others.items() <= save.items() for save in (old, new))
    assert in_place(folder) == new
    assert contents(folder).keys() == new.keys()
    assert len(seen) > 8  # at least: one file created, written, put on the disk and renamed, and the folder twice
    assert seen == sorted(seen)  # the old state up to some step, the new one from there on
    assert {seen[0], seen[-1]} == {0, 1}


@pytest.mark.parametrize("before", ["foreign", thorough("pickled")])
def test_what_others_write_over_a_killed_save_counts(before: str, folder: Path) -> None:
    """And so does what this package writes over it, a single file included."""
    kind = KINDS["converted"]
    foreign(folder, 0)
    theirs = contents(folder)
    put(folder, {})
    OVERWRITES[before][0](folder, 0)
    for _ in killed_at_every_step(folder, lambda: kind.write(folder, 1)):
        torn = contents(folder)
        for name, content in theirs.items():
            (folder / name).write_bytes(content)
        assert kind.read(folder) == 0
        MobileViTConfig.from_pretrained(folder, output_stride=16).save_pretrained(folder)
        assert read_checkpoint(folder).config.output_stride == 16
        assert model_weights(folder) == 0
        put(folder, torn)
        PROCESSORS[1].save_pretrained(folder)
        assert processor_state(folder) == 1
        put(folder, torn)
        state = kind.read(folder)
        CONFIGS[0].save_pretrained(folder)
        assert read_checkpoint(folder).config == CONFIGS[0]
        assert (model_weights(folder), processor_state(folder)) == (state, state)


def test_a_configuration_that_others_write_over_a_killed_save_counts(folder: Path) -> None:
    """With the weights and the image processor of the save, which belong together as before."""
    kind = KINDS["converted"]
    foreign(folder, 0)
    theirs = json.dumps(CONFIGS[0].to_dict() | {"output_stride": 16})
    for _ in killed_at_every_step(folder, lambda: kind.write(folder, 1)):
        state = kind.read(folder)
        (folder / "config.json").write_text(theirs)
        for _ in range(2):
            assert read_checkpoint(folder).config.output_stride == 16
            assert (model_weights(folder), processor_state(folder)) == (state, state)
            write_atomically(folder / "labels.txt", b"cat")
        assert (folder / "config.json").read_text() == theirs


def model_weights(folder: Path) -> int:
    """Which model's weights a folder holds, whatever its configuration."""
    return [len(model.classifier.bias) for model in MODELS].index(
        len(read_checkpoint(folder).state_dict["classifier.bias"])
    )
