"""What predicted times rest on is what the kernels do: some regions are counted again."""

from __future__ import annotations

import json

import pytest
import torch

from emulator.work import count
from testing.paths import REPOSITORY
from testing.shapes import preset_calls
from testing.tiers import thorough_where

PRESETS = {"S": "small", "XS": "x_small", "XXS": "xx_small"}
ROWS = json.loads((REPOSITORY / "benchmarks/results/gpu-h200/predictions.json").read_text(encoding="utf-8"))["rows"]
AGAIN = {
    ("XXS", "conv2d_bias_act", 8, 256),
    ("XXS", "conv2d_bias_act", 8, 1),
    ("XXS", "inverted_residual", 16, 256),
    ("XXS", "inverted_residual", 16, 1),
    ("XXS", "mobilevit_transformer", 8, 256),
}
"""Size, operator, height and images of what takes a second."""
KNOWN = {(row["model"], row["operator"], row["shape"]["height"], row["batch"]) for row in ROWS}
CASES = sorted((size, op, height, batch) for size, op, height, batch in KNOWN if batch == 1 or height <= 32)
"""Without those of many large images, each of which takes a minute under sanitizers."""


@pytest.mark.parametrize(
    ("size", "op", "height", "images"), thorough_where(CASES, lambda case: case not in AGAIN), ids=str
)
def test_counts_are_those_of_the_kernels(size: str, op: str, height: int, images: int) -> None:
    """`python -m benchmarks predict --update` writes them anew."""
    rows = [
        row
        for row in ROWS
        if (row["model"], row["operator"], row["shape"]["height"], row["batch"]) == (size, op, height, images)
    ]
    calls = {call.op + str(call.shape): call for call in preset_calls(PRESETS[size], 1, 256, torch.float16)}
    assert rows
    for row in rows:
        cycles, waits = count(calls[op + str(row["shape"])], images)
        assert cycles == pytest.approx(row["cycles"], rel=0.02, abs=1)
        assert waits == pytest.approx(row["waits"], rel=0.02)
