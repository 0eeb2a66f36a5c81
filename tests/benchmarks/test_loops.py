"""Loops around a model that the engine is compared with: they answer what it answers, or nothing is measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import loops

BATCH = 4
CLASSES = 8


class Brightness(nn.Module):
    """Classes by the mean of an image, and nothing but batches of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(CLASSES) / CLASSES)

    def forward(self, images: Tensor) -> Any:
        assert len(images) == BATCH
        return SimpleNamespace(logits=-(images.mean((1, 2, 3))[:, None] - self.weight).abs())


class Pixels:
    """Image processor: values of 0 to 1."""

    def __call__(self, picture: Image.Image, return_tensors: str) -> dict[str, Tensor]:
        return {"pixel_values": torch.from_numpy(np.asarray(picture) / np.float32(255)).permute(2, 0, 1)[None]}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Images of all classes; the last batch has one."""
    found = []
    for number in range(2 * BATCH + 1):
        found.append(tmp_path / f"{number}.png")
        Image.new("RGB", (6, 5), (255 * (number % CLASSES) // CLASSES,) * 3).save(found[-1])
    return found


def test_a_loader_answers_every_file(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: module)
    classifier = loops.Classifier(Brightness(), Pixels(), BATCH, workers=2)
    way = loops.loops(classifier, ["dataloader-compile"])["dataloader-compile"]
    expected = [number % CLASSES for number in range(len(files))]
    assert way(files) == expected
    assert way(files[::-1]) == expected[::-1]


def test_times_come_in_turns() -> None:
    calls: list[str] = []

    def way(name: str) -> loops.Way:
        return lambda sources: calls.append(name) or [7] * len(sources)  # type: ignore[func-returns-value]

    times = loops.interleaved({"a": way("a"), "b": way("b")}, [1, 2], 3)
    assert calls == ["a", "b"] * 4
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3}
    assert len(loops.interleaved({"a": way("a")}, [1], 5, seconds=0.0)["a"]) == 1


@pytest.mark.parametrize("answers", [[1] * 19, [1] * 17 + [2] * 3, []], ids=["too few", "others", "none"])
def test_other_answers_are_no_measurement(answers: list[int]) -> None:
    ways: dict[str, loops.Way] = {"ours": lambda sources: [1] * 20, "theirs": lambda sources: answers}
    with pytest.raises(RuntimeError, match="theirs: expected 20 answers as by ours"):
        loops.interleaved(ways, [*range(20)], 1)
    ways["theirs"] = lambda sources: [1] * 18 + [2] * 2  # between two classes
    loops.interleaved(ways, [*range(20)], 1)
    ways |= {"theirs": lambda sources: [3] * 20, "others": lambda sources: [3] * 20}  # by another treatment of images
    loops.interleaved(ways, [*range(20)], 1, like={"theirs": "theirs", "others": "theirs"})
