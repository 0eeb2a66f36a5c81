"""The main job on real input: 210 aerial photos, a trained MobileViT-XXS, from the command line."""

import csv
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mobilevit_fast as mvf
from testing.paths import UCMERCED, needs_ucmerced

pytestmark = [needs_ucmerced, pytest.mark.slow]


def classify(*options: str) -> dict[str, Any]:
    assert UCMERCED is not None
    command = [sys.executable, "-m", "mobilevit_fast.cli", "classify", str(UCMERCED / "images"), "--json"]
    command += ["--labels", str(UCMERCED / "labels.csv"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("weights", "acceleration"), [("hf", []), ("hf", ["--no-accelerate"]), ("cvnets/best_model.pth", [])]
)
def test_199_of_210_are_right(weights: str, acceleration: list[str]) -> None:
    assert UCMERCED is not None
    options = ["--model", str(UCMERCED / weights), "--processor", str(UCMERCED / "hf"), *acceleration]
    summary = classify(*options)["summary"]
    assert (summary["correct"], summary["labelled"]) == (199, 210)


@pytest.mark.parametrize(("weights", "accelerated"), [("hf", False), ("hf", True), ("cvnets/best_model.pth", True)])
def test_logits_are_the_reference(weights: str, accelerated: bool) -> None:
    assert UCMERCED is not None
    model = mvf.MobileViTForImageClassification.from_pretrained(UCMERCED / weights).eval()
    if accelerated:
        mvf.accelerate(model, strict=True)
    processor = mvf.MobileViTImageProcessor.from_pretrained(UCMERCED / "hf")
    with (UCMERCED / "labels.csv").open() as file:
        paths = [UCMERCED / "images" / row["image"] for row in csv.DictReader(file)]
    (expected,) = load_file(UCMERCED / "reference_logits.safetensors").values()
    with torch.inference_mode():
        logits = torch.cat([model(**processor(paths[i : i + 30])).logits for i in range(0, len(paths), 30)])
    assert (logits - expected).abs().max() <= 1e-4
