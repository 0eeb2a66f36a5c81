"""What predicted times rest on is what the kernels do: some regions are counted again."""

from __future__ import annotations

import pytest
import torch

from benchmarks import predictions
from testing.shapes import preset_calls

AGAIN = {
    (256, "conv2d_bias_act 80→80, 8×8"),
    (256, "inverted_residual 64→128→80, 16×16"),
    (256, "mobilevit_transformer 80→96→80, 8×8"),
    (1, "conv2d_bias_act 80+80→80, 8×8"),
    (1, "inverted_residual 64→128→80, 16×16"),
    (1, "classifier_head 80→320→1000, 8×8"),
}
"""Of the smallest size, one of each kind of kernel that takes a second."""


@pytest.mark.parametrize(("batch", "region"), sorted(AGAIN))
def test_counts_are_those_of_the_kernels(batch: int, region: str) -> None:
    """`python -m benchmarks predict --update` writes them anew."""
    row = next(
        row
        for row in predictions.load()["rows"]
        if row["batch"] == batch and f"{row['operator']} {predictions.shape_text(row['shape'])}".startswith(region)
    )
    call = next(c for c in preset_calls("xx_small", 1, 256, torch.float16) if c.shape == row["shape"])
    cycles, waits = predictions.count(call, batch)
    assert cycles == pytest.approx(row["cycles"], rel=0.02, abs=1)
    assert waits == pytest.approx(row["waits"], rel=0.02)
