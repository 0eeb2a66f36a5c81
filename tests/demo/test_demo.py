"""`python -m mobilevit_fast.demo`."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from mobilevit_fast import demo
from mobilevit_fast.cli import app
from mobilevit_fast.data import digits_checkpoint
from mobilevit_fast.data.digit_images import load_digit_images
from mobilevit_fast.images import MobileViTImageProcessor
from testing.paths import REPOSITORY


def make_comparison(reference: list[int], accelerated: list[int], labels: list[int]) -> demo.Comparison:
    """One that only says which digits the models answered."""
    one_hot = torch.eye(10)
    return demo.Comparison(one_hot[reference], one_hot[accelerated], torch.tensor(labels), 2e-3, 1e-3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, demo.Comparison, str]:
    """The demo's output folder, its measurements and what it printed."""
    folder, text = tmp_path_factory.mktemp("demo") / "made" / "on demand", io.StringIO()
    return folder, demo.run(folder, rounds=1, console=Console(file=text, width=200)), text.getvalue()


def test_both_models_meet_what_is_required(finished: tuple[Path, demo.Comparison, str]) -> None:
    _, result, _ = finished
    assert result.failures == []
    assert result.reference.shape == result.accelerated.shape == (359, 10)
    # Bitwise equal logits would mean that the accelerated model was not accelerated.
    assert 0 < result.largest_difference < 1e-3
    assert result.reference_seconds > 0
    assert result.accelerated_seconds > 0


def test_what_is_printed(finished: tuple[Path, demo.Comparison, str]) -> None:
    folder, result, text = finished
    assert text.count(f"{result.reference_accuracy:.2%}") == 2
    assert "same answer" in text
    assert re.search(r"12 of 12 regions fused: \d+ by \w+", text)
    assert str(folder / "demo_predictions.png") in text
    assert str(folder / "digits") in text


def test_the_picture_has_content(finished: tuple[Path, demo.Comparison, str]) -> None:
    with Image.open(finished[0] / "demo_predictions.png") as picture:
        assert picture.width > 1000
        assert picture.height > 500
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_wrong_answers_are_drawn_and_marked(tmp_path: Path) -> None:
    _, held_out = load_digit_images()
    right, wrong = held_out.labels, held_out.labels.copy()
    wrong[-1] = (wrong[-1] + 1) % 10  # the last one is shown only because it is wrong

    def red_pixels(predictions: np.ndarray) -> int:
        demo.write_predictions(held_out, predictions, tmp_path / "picture.png")
        pixels = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
        return int(np.sum((pixels[..., 0] > 180) & (pixels[..., 1] < 80) & (pixels[..., 2] < 80)))

    assert red_pixels(right) == 0
    assert red_pixels(wrong) > 100


def test_samples_are_the_held_out_pixels(finished: tuple[Path, demo.Comparison, str]) -> None:
    folder = finished[0] / "digits"
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [str(digit) for digit in range(10) for _ in range(2)]
    assert {row["image"] for row in rows} == {path.name for path in folder.glob("*.png")}
    processor = MobileViTImageProcessor.from_pretrained(digits_checkpoint())
    _, held_out = load_digit_images()
    images = dict(zip(held_out.rows.tolist(), held_out.images, strict=True))
    for row in rows:
        original = images[int(row["image"].removesuffix(".png").split("_")[1])]
        from_file = processor(folder / row["image"])["pixel_values"]
        assert torch.equal(from_file, processor(original)["pixel_values"])


def test_the_command_line_answers_the_same_for_the_samples(finished: tuple[Path, demo.Comparison, str]) -> None:
    output, comparison, _ = finished
    folder = output / "digits"
    right = (comparison.accelerated.argmax(-1) == comparison.labels).tolist()
    right_by_row = dict(zip(load_digit_images()[1].rows.tolist(), right, strict=True))
    samples = [int(path.stem.split("_")[1]) for path in folder.glob("*.png")]
    result = CliRunner().invoke(app, ["classify", str(folder), "--labels", str(folder / "labels.csv"), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)["summary"]
    assert (summary["images"], summary["labelled"], summary["failed"]) == (20, 20, 0)
    assert summary["correct"] == sum(right_by_row[row] for row in samples)


@pytest.mark.parametrize(
    ("reference", "accelerated", "messages"),
    [
        ([0] * 100, [0] * 100, []),
        ([0] * 97 + [1] * 3, [0] * 97 + [1] * 3, []),
        ([1] * 4 + [0] * 96, [1] * 4 + [0] * 96, ["96.00%", "96.00%"]),
        ([0] * 100, [0] * 99 + [1], ["same answers"]),
        ([0] * 100, [0] * 90 + [1] * 10, ["accuracy with acceleration, got 90.00%", "got 90.00%"]),
    ],
)
def test_failures(reference: list[int], accelerated: list[int], messages: list[str]) -> None:
    failures = make_comparison(reference, accelerated, [0] * 100).failures
    assert len(failures) == len(messages)
    for failure, message in zip(failures, messages, strict=True):
        assert message in failure


@pytest.mark.parametrize(("accelerated", "status"), [([3, 4], 0), ([3, 5], 1)])
def test_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accelerated: list[int], status: int) -> None:
    result = make_comparison([3, 4], accelerated, [3, 4])
    monkeypatch.setattr(demo, "run", lambda *arguments: result)
    if status == 0:
        demo.main(tmp_path, 1)
    else:
        with pytest.raises(demo.typer.Exit) as caught:
            demo.main(tmp_path, 1)
        assert caught.value.exit_code == status


def test_it_is_a_module_to_run() -> None:
    command = [sys.executable, "-m", "mobilevit_fast.demo", "--help"]
    printed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    assert "held-out digits" in printed
