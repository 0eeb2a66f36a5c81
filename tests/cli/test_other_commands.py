"""`mobilevit-fast segment`, `convert`, `plan` and `info`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from mobilevit_fast.checkpoints import load_model, read_checkpoint
from mobilevit_fast.cli import app
from mobilevit_fast.cli.overlay import colour, paint, shares
from mobilevit_fast.images import MobileViTImageProcessor
from tests.checkpoints.helpers import assert_same_tensors


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def assert_refused(result: Result, status: int, *words: str) -> None:
    """One line on stderr with these words, nothing on stdout."""
    assert result.exit_code == status
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("accelerate", ["--accelerate", "--no-accelerate"])
def test_segment(segmenter: Path, photos: Path, tmp_path: Path, accelerate: str) -> None:
    photo, overlay = photos / "a.jpg", tmp_path / "overlay.png"
    result = run("segment", photo, "--model", segmenter, "--output", overlay, "--json", accelerate)
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["output"] == str(overlay)

    processor = MobileViTImageProcessor.from_pretrained(segmenter)
    with torch.inference_mode():
        outputs = load_model(segmenter)(**processor([photo], do_center_crop=False))
    (classes,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(64, 90)])
    # Fused operators round differently, which can move a border by a pixel.
    found = {one["index"]: one["share"] for one in values["classes"]}
    for index in range(3):
        assert found.get(index, 0) == pytest.approx(float((classes == index).float().mean()), abs=0.01)
    assert sum(found.values()) == pytest.approx(1)
    with Image.open(overlay) as picture:
        assert picture.size == (90, 64)

    table = run("segment", photo, "--model", segmenter, "--output", overlay, accelerate)
    for one in values["classes"]:
        assert one["label"] in table.stdout
        assert f"{100 * one['share']:.1f} %" in table.stdout


def test_the_picture_shows_photo_classes_and_legend() -> None:
    photo = Image.fromarray(np.full((200, 300, 3), 100, np.uint8))
    classes = torch.zeros(200, 300, dtype=torch.int64)
    classes[:100, 150:] = 2
    found = shares(classes, {0: "background", 1: "cat", 2: "dog"})
    assert [(one.label, one.share) for one in found] == [("background", 0.75), ("dog", 0.25)]
    picture = np.array(paint(photo, classes, found))
    assert picture.shape == (200, 300, 3)
    assert (picture[:100, :150] == 100).all()  # background is not painted
    painted = picture[50, 250].astype(int)
    assert (picture[:100, 150:] == painted).all()
    mixed = 0.45 * 100 + 0.55 * np.array(colour(2))
    assert np.abs(painted - mixed).max() <= 1
    corner = picture[150:, :100].reshape(-1, 3)  # the legend: paper, and a swatch in the class's own colour
    assert (corner == 255).all(axis=1).any()
    assert (corner == colour(2)).all(axis=1).any()


def test_a_legend_larger_than_the_photo_is_shrunk() -> None:
    classes = torch.arange(32 * 32).reshape(32, 32) % 30
    found = shares(classes, {index: f"a class with quite a long name {index}" for index in range(30)})
    assert paint(Image.new("RGB", (32, 32)), classes, found).size == (32, 32)


def test_neighbouring_classes_differ_in_colour() -> None:
    colours = np.array([colour(index) for index in range(21)])
    distances = np.abs(colours[:, None] - colours[None]).max(axis=-1) + 255 * np.eye(21)
    assert distances.min() > 10


def test_segment_refuses(classifier: Path, segmenter: Path, photos: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.png"
    for photo, model, output, status, words in (
        (photos / "a.jpg", classifier, overlay, 1, ["expected a model for segmentation, got one for classification"]),
        (photos / "notes.txt", segmenter, overlay, 1, ["notes.txt", "expected an image"]),
        (photos / "none.jpg", segmenter, overlay, 1, ["none.jpg"]),
        (photos / "a.jpg", segmenter, tmp_path / "overlay.txt", 2, ["--output", "overlay.txt"]),
        (photos / "a.jpg", segmenter, tmp_path / "overlay.psd", 2, ["--output", "overlay.psd"]),
        (photos / "a.jpg", segmenter, tmp_path / "no" / "overlay.png", 2, ["a folder that exists", "overlay.png"]),
        (photos / "a.jpg", segmenter, photos / "a.jpg", 2, ["expected another file than the photo", "a.jpg"]),
    ):
        assert_refused(run("segment", photo, "--model", model, "--output", output), status, *words)
    assert not overlay.exists()
    assert run("segment", photos / "a.jpg", "--output", overlay).exit_code == 2


@pytest.mark.parametrize("naming", ["huggingface", "cvnets", "timm"])
def test_convert(classifier: Path, tmp_path: Path, naming: str) -> None:
    result = run("convert", classifier, tmp_path / "out", "--naming", naming)
    assert result.exit_code == 0, result.stderr
    checkpoint = read_checkpoint(tmp_path / "out")
    assert checkpoint.naming == naming
    assert_same_tensors(checkpoint.state_dict, read_checkpoint(classifier).state_dict)
    assert checkpoint.config.id2label[1] == "dog"
    assert MobileViTImageProcessor.from_pretrained(tmp_path / "out").size == {"shortest_edge": 72}


def test_convert_refuses(segmenter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert_refused(run("convert", segmenter, out, "--naming", "keras"), 2, "--naming", "'keras'")
    assert_refused(run("convert", segmenter, out, "--naming", "timm"), 1, "timm has no names for a segmentation model")
    assert_refused(run("convert", tmp_path / "nothing.pth", out), 1, "nothing.pth")
    assert not out.exists()


def test_convert_does_not_replace_a_checkpoint_unasked(classifier: Path, segmenter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("convert", classifier, out).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert_refused(run("convert", segmenter, out), 2, "found config.json and model.safetensors (--force)")
    assert_refused(run("convert", out, out, "--force"), 2, "expected another folder than the checkpoint's own")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert run("convert", segmenter, out, "--force").exit_code == 0
    assert (out / "model.safetensors").read_bytes() != before["model.safetensors"]


def test_plan(classifier: Path) -> None:
    result = run("plan", "--model", classifier)
    assert result.exit_code == 0
    assert "inverted_residual" in result.stdout
    regions = json.loads(run("plan", "--model", classifier, "--json").stdout)
    assert "mobilevit.encoder.layer.2.downsampling_layer" in [region["path"] for region in regions]
    assert_refused(run("plan", "--model", "/no/such/folder"), 1, "/no/such/folder")
    assert_refused(run("plan", "--model", classifier, "--dtype", "int8"), 2, "--dtype")


def test_info() -> None:
    result = run("info")
    assert result.exit_code == 0
    assert torch.__version__ in result.stdout
    assert json.loads(run("info", "--json").stdout)["versions"]["torch"] == torch.__version__


def test_help() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("classify", "segment", "info", "convert", "export", "plan"):
        assert command in result.stdout


@pytest.mark.parametrize(
    ("shell", "words", "expected"),
    [
        ("bash", {"COMP_WORDS": "mobilevit-fast cl", "COMP_CWORD": "1"}, {"classify"}),
        ("bash", {"COMP_WORDS": "mobilevit-fast predict --for", "COMP_CWORD": "2"}, {"--format"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "mobilevit-fast p"}, {"predict", "plan"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "mobilevit-fast p", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}, {"predict"}),
    ],
)
def test_shells_complete(shell: str, words: dict[str, str], expected: set[str]) -> None:
    """By the scripts that `--install-completion` writes."""
    asking = {"_MOBILEVIT_FAST_COMPLETE": f"complete_{shell}"}
    shown = CliRunner().invoke(app, [], prog_name="mobilevit-fast", env=asking | words)
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in expected), shown.output
    assert "bench-engine" not in shown.stdout
