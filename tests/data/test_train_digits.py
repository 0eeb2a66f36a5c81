"""The script that trains the checkpoint, on a few pictures."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console

from mobilevit_fast.data.digit_images import load_digit_images
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification
from testing.paths import REPOSITORY


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_digits", REPOSITORY / "examples" / "train_digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_writes_a_checkpoint_that_loads_and_is_as_good_as_it_says(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main(tmp_path, epochs=1, seed=0, limit=32)
    model = MobileViTForImageClassification.from_pretrained(tmp_path).float()
    processor = MobileViTImageProcessor.from_pretrained(tmp_path)
    _, held_out = load_digit_images()
    with torch.inference_mode():
        logits = torch.cat([model(x).logits for x in processor(held_out.images)["pixel_values"].split(32)])
    right = int((logits.argmax(-1) == torch.from_numpy(held_out.labels)).sum())
    assert f"{right} of 359 held-out pictures right" in capsys.readouterr().out
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"| held-out fifth | {right} of 359 |" in card
    assert not re.search(r"{\w*}", card)  # every field of the card is filled in


def test_the_seed_decides_the_weights(script: ModuleType) -> None:
    images, labels = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(8)

    def weights(seed: int) -> dict[str, torch.Tensor]:
        model = script.train(images, labels, epochs=2, seed=seed, console=Console(quiet=True))
        return dict(model.state_dict())

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_changes_to_pictures(script: ModuleType) -> None:
    training, _ = load_digit_images()
    images = script.make_processor()(training.images[:64])["pixel_values"][:, :1]
    changed = script.augment(images, torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not any(torch.equal(before, after) for before, after in zip(images, changed, strict=True))
    # Where the corner is, there is paper: brighter than the ink in about half of the pictures.
    light_paper = (changed[:, 0, 0, 0] > changed.flatten(1).mean(1)).double().mean()
    assert 0.25 < light_paper < 0.75
    # The seed again gives the same changes.
    assert torch.equal(changed, script.augment(images, torch.Generator().manual_seed(0)))
