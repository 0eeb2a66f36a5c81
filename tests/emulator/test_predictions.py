"""What predicted times rest on is what the kernels do: some regions are counted again."""

from __future__ import annotations

import json

import pytest
import torch

from emulator.work import count
from testing.paths import REPOSITORY
from testing.shapes import preset_calls

ROWS = json.loads((REPOSITORY / "benchmarks/results/gpu-h200/predictions.json").read_text(encoding="utf-8"))["rows"]
AGAIN = {
    ("conv2d_bias_act", 8, 256),
    ("conv2d_bias_act", 8, 1),
    ("inverted_residual", 16, 256),
    ("inverted_residual", 16, 1),
    ("mobilevit_transformer", 8, 256),
    ("classifier_head", 8, 1),
}
"""Operator, height and images: of the smallest size those that take a second."""


@pytest.mark.parametrize(("op", "height", "images"), sorted(AGAIN))
def test_counts_are_those_of_the_kernels(op: str, height: int, images: int) -> None:
    """`python -m benchmarks predict --update` writes them anew."""
    rows = [
        row
        for row in ROWS
        if (row["model"], row["operator"], row["shape"]["height"], row["batch"]) == ("XXS", op, height, images)
    ]
    calls = {call.op + str(call.shape): call for call in preset_calls("xx_small", 1, 256, torch.float16)}
    assert rows
    for row in rows:
        cycles, waits = count(calls[op + str(row["shape"])], images)
        assert cycles == pytest.approx(row["cycles"], rel=0.02, abs=1)
        assert waits == pytest.approx(row["waits"], rel=0.02)
