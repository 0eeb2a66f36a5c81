"""Photos of 16 bits and with transparency on the command line: as the image processor reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mobilevit_fast.checkpoints import load_model
from mobilevit_fast.cli import app
from mobilevit_fast.images import MobileViTImageProcessor

GREY_16 = np.linspace(0, 65535, 90 * 80).reshape(90, 80).astype(np.uint16)
EIGHT = (GREY_16 >> 8).astype(np.uint8)


def answers(*command: object) -> dict:
    result = CliRunner().invoke(app, [*map(str, command), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_classify(classifier: Path, tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY_16).save(tmp_path / f"deep.{suffix}")
    Image.fromarray(EIGHT).save(tmp_path / "eight.png")
    both = answers("classify", tmp_path / f"deep.{suffix}", tmp_path / "eight.png", "--model", classifier)["images"]
    assert both[0]["predictions"] == both[1]["predictions"]
    model, processor = load_model(classifier), MobileViTImageProcessor.from_pretrained(classifier)
    colours = np.repeat(GREY_16[:, :, None], 3, axis=2)
    probability = model(**processor(colours)).logits.softmax(-1).max().item()
    assert both[0]["predictions"][0]["probability"] == pytest.approx(probability, abs=1e-4)


def test_segment(segmenter: Path, tmp_path: Path) -> None:
    Image.fromarray(GREY_16).save(tmp_path / "deep.png")
    Image.fromarray(EIGHT).save(tmp_path / "eight.png")
    Image.fromarray(EIGHT.astype(np.float32) / 255).save(tmp_path / "fractions.tiff")
    found = {}
    for name in ("deep.png", "eight.png", "fractions.tiff"):
        out = tmp_path / f"overlay of {name}.png"
        found[name] = answers("segment", tmp_path / name, "--model", segmenter, "--output", out)["classes"]
        found[name].append(np.asarray(Image.open(out)).tobytes())
    assert found["deep.png"] == found["eight.png"] == found["fractions.tiff"]


@pytest.mark.parametrize("do_convert_rgb", [False, True])
def test_transparency(segmenter: Path, tmp_path: Path, do_convert_rgb: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "transparent.png")
    settings = tmp_path / "settings"
    MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=64, do_convert_rgb=do_convert_rgb).save_pretrained(
        settings
    )
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    shown = Image.alpha_composite(white, picture) if do_convert_rgb else picture
    shown.convert("RGB").save(tmp_path / "shown.png")
    found = []
    for name in ("transparent.png", "shown.png"):
        out = tmp_path / f"overlay of {name}"
        options = ("--model", segmenter, "--output", out, "--processor", settings)
        found.append((answers("segment", tmp_path / name, *options)["classes"], Image.open(out).tobytes()))
    assert found[0] == found[1]
