"""Settings of the families of checkpoints, and what timm says of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL.Image import Resampling

from mobilevit_fast import MobileViTConfig, MobileViTImageProcessor
from mobilevit_fast.checkpoints import NAMINGS, Checkpoint
from testing.peers import import_timm
from tests.images.pictures import picture

APPLE = {
    "size": {"shortest_edge": 288},
    "crop_size": {"height": 256, "width": 256},
    "resample": Resampling.BILINEAR,
    "do_flip_channel_order": True,
    "do_normalize": False,
    "do_rescale": True,
}
TIMM = {
    "size": {"shortest_edge": 284},
    "crop_size": {"height": 256, "width": 256},
    "resample": Resampling.BICUBIC,
    "do_flip_channel_order": False,
    "do_normalize": True,
    "image_mean": (0.0, 0.0, 0.0),
    "image_std": (1.0, 1.0, 1.0),
    "do_rescale": True,
}
EXPECTED = {"huggingface": APPLE, "cvnets": APPLE, "timm": TIMM}


def checkpoint(folder: Path, naming: Any, **config: Any) -> Checkpoint:
    return Checkpoint({}, MobileViTConfig(**config), naming, folder / "model.safetensors")


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_family_has_settings(naming: str, tmp_path: Path) -> None:
    processor = MobileViTImageProcessor.for_checkpoint(checkpoint(tmp_path, naming))
    assert {name: getattr(processor, name) for name in EXPECTED[naming]} == EXPECTED[naming]
    again = MobileViTImageProcessor.from_pretrained(processor.save_pretrained(tmp_path))
    assert again.settings == processor.settings


@pytest.mark.parametrize(("naming", "edge"), [("cvnets", 352), ("timm", 355)])
def test_the_shorter_edge_decides(naming: str, edge: int, tmp_path: Path) -> None:
    given = checkpoint(tmp_path, naming, image_size=[320, 384])
    processor = MobileViTImageProcessor.for_checkpoint(given)
    assert processor.size == {"shortest_edge": edge}
    assert processor.crop_size == {"height": 320, "width": 384}
    assert processor(picture(500, 700)).pixel_values.shape == (1, 3, 320, 384)


def test_what_a_checkpoint_of_timm_says_of_itself(tmp_path: Path) -> None:
    described = {"crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "mobilevit_s", "pretrained_cfg": described}))
    processor = MobileViTImageProcessor.for_checkpoint(checkpoint(tmp_path, "timm"))
    assert processor.size == {"shortest_edge": 256}
    assert processor.resample == Resampling.BILINEAR
    assert processor.image_mean == (0.1, 0.2, 0.3)
    assert processor.image_std == (0.5, 0.5, 0.5)
    others = MobileViTImageProcessor.for_checkpoint(checkpoint(tmp_path, "cvnets"))
    assert others.size == {"shortest_edge": 288}


@pytest.mark.parametrize("size", [(300, 400), (511, 383)])
def test_same_as_timms_own_transform(size: tuple[int, int], tmp_path: Path) -> None:
    """To the bit, where the border is even on both sides; timm shifts others by a pixel."""
    timm = import_timm()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=timm.create_model("mobilevit_xxs")))
    image = picture(*size)
    processor = MobileViTImageProcessor.for_checkpoint(checkpoint(tmp_path, "timm"))
    assert torch.equal(processor(image).pixel_values[0], transform(image))


def test_overrides(tmp_path: Path) -> None:
    processor = MobileViTImageProcessor.for_checkpoint(checkpoint(tmp_path, "cvnets"), do_center_crop=False, size=300)
    assert processor.size == {"shortest_edge": 300}
    assert not processor.do_center_crop
    assert processor.do_flip_channel_order
    with pytest.raises(TypeError, match="unknown keyword 'sise'"):
        MobileViTImageProcessor.for_checkpoint(checkpoint(tmp_path, "cvnets"), sise=300)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"crop_pct": 1.5}, r"expected crop_pct to be a share of the image, up to 1, got 1\.5"),
        ({"crop_pct": 1e-9}, "expected crop_pct to be a share of the image, up to 1, got 1e-09"),
        ({"interpolation": "random"}, "expected interpolation to be one of nearest, .* got 'random'"),
        ({"mean": None}, "image_mean: expected a value because do_normalize is true, got None"),
        ({"std": [0, 0, 0]}, "image_std: expected numbers other than 0"),
    ],
)
def test_what_timm_cannot_mean_is_refused(described: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": described}))
    with pytest.raises(ValueError, match=rf"^{tmp_path}/config\.json: {message}"):
        MobileViTImageProcessor.for_checkpoint(checkpoint(tmp_path, "timm"))


def test_another_family_is_refused(tmp_path: Path) -> None:
    given = dataclasses.replace(checkpoint(tmp_path, "timm"), naming="keras")
    with pytest.raises(ValueError, match=r"^expected a checkpoint of huggingface, cvnets, timm, got 'keras'$"):
        MobileViTImageProcessor.for_checkpoint(given)
