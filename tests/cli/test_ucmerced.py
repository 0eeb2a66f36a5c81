"""The main job on real input: 210 aerial photos, a trained MobileViT-XXS, from the command line."""

import csv
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import mobilevit_fast as mvf
from testing.paths import UCMERCED, needs_ucmerced
from testing.tiers import thorough
from tests.cli.test_errors import run

pytestmark = [needs_ucmerced, pytest.mark.slow]


@pytest.mark.parametrize(
    ("weights", "acceleration"), [("hf", []), thorough(("hf", ["--no-accelerate"])), ("cvnets/best_model.pth", [])]
)
def test_199_of_210_are_right(weights: str, acceleration: list[str]) -> None:
    """The first in a process of its own, as users run it."""
    assert UCMERCED is not None
    options = ["--model", str(UCMERCED / weights), "--processor", str(UCMERCED / "hf"), *acceleration]
    arguments = ["classify", str(UCMERCED / "images"), "--json", "--labels", str(UCMERCED / "labels.csv"), *options]
    if weights == "hf":
        command = [sys.executable, "-m", "mobilevit_fast.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        status, shown = done.returncode, done.stdout
    else:
        result = run(*arguments)
        status, shown = result.exit_code, result.stdout
    assert status == 0, shown
    summary = json.loads(shown)["summary"]
    assert (summary["correct"], summary["labelled"]) == (199, 210)


@pytest.fixture(scope="module")
def pixel_values() -> torch.Tensor:
    """All photos as the model takes them."""
    assert UCMERCED is not None
    processor = mvf.MobileViTImageProcessor.from_pretrained(UCMERCED / "hf")
    with (UCMERCED / "labels.csv").open() as file:
        return processor([UCMERCED / "images" / row["image"] for row in csv.DictReader(file)])["pixel_values"]


@pytest.mark.parametrize(
    ("weights", "accelerated"), [("hf", True), *map(thorough, [("hf", False), ("cvnets/best_model.pth", True)])]
)
def test_logits_are_the_reference(weights: str, accelerated: bool, pixel_values: torch.Tensor) -> None:
    assert UCMERCED is not None
    model = mvf.MobileViTForImageClassification.from_pretrained(UCMERCED / weights).eval()
    if accelerated:
        mvf.accelerate(model, strict=True)
    (expected,) = load_file(UCMERCED / "reference_logits.safetensors").values()
    with torch.inference_mode():
        logits = torch.cat([model(images).logits for images in pixel_values.split(30)])
    assert (logits - expected).abs().max() <= 1e-4
