"""Predicted times of the kernels for Hopper stand beside what was measured, and are near it."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import predictions, report
from benchmarks.__main__ import app
from benchmarks.gpu import table
from benchmarks.registry import SIZES
from benchmarks.run import RESULTS
from testing.shapes import preset_calls

NEAR, MOST = 1.5, 1.8
"""How far off a prediction may be: from a prototype, and from a kernel whose time the rules were not made for."""

Rows = dict[predictions.Region, dict[str, Any]]


@pytest.fixture(scope="module")
def predicted() -> Rows:
    return {predictions.region_of(row): row for row in predictions.load()["rows"]}


def off(predicted: float, measured: float) -> float:
    return max(predicted / measured, measured / predicted)


def is_of_the_last_stack(row: dict[str, Any]) -> bool:
    return row["shape"]["height"] < 32 or row["commit"] == "57140f3"


def test_every_region_of_every_size_is_predicted(predicted: Rows) -> None:
    for batch in (256, 1):
        for size, preset in SIZES.items():
            calls = preset_calls(preset, 1, 256, torch.float16)
            rows = [row for row in predictions.load()["rows"] if (row["model"], row["batch"]) == (size, batch)]
            assert sum(row["calls"] for row in rows) == len(list(calls)), (size, batch)
    assert all(min(row["cycles"].values()) >= 0 for row in predicted.values())


def test_predictions_are_near_the_prototypes(predicted: Rows) -> None:
    prototypes = predictions.load(predictions.PROTOTYPES)["rows"]
    assert len(prototypes) >= 38
    far = {
        predictions.region_of(row): (predictions.microseconds(predicted[predictions.region_of(row)]), row["us"])
        for row in prototypes
        if off(predictions.microseconds(predicted[predictions.region_of(row)]), row["us"]) > NEAR
    }
    assert not far


def test_predictions_are_near_what_was_measured(predicted: Rows) -> None:
    """But for stacks whose kernel is another since: those of one image, and those of 256 tokens but the last ones."""
    regions = report.newest_of(RESULTS, report.REGIONS)
    assert regions is not None
    ratios = {
        key: off(predictions.microseconds(predicted[key]), row["us"])
        for row in regions["rows"]
        if (key := predictions.region_of(row)) in predicted
        and (row["operator"] != "mobilevit_transformer" or (row["batch"] > 1 and is_of_the_last_stack(row)))
    }
    assert len(ratios) > 75
    assert median(ratios.values()) < 1.2
    assert max(ratios.values()) < MOST, max(ratios, key=lambda key: ratios[key])


def test_they_stand_in_the_table_of_regions() -> None:
    regions = report.newest_of(RESULTS, report.REGIONS)
    assert regions is not None
    text = table.regions(regions, predictions.beside())
    (line,) = (line for line in text.splitlines() if line.startswith("| S, 256 | `conv2d_bias_act` 96→96,"))
    assert "matrix | 63.8 |" in line


@pytest.mark.parametrize("words", [["--size", "Q"], ["--size", "S", "--update"]], ids=" ".join)
def test_wrong_options_are_one_line(words: list[str]) -> None:
    outcome = CliRunner().invoke(app, ["predict", *words])
    assert outcome.exit_code == 2
    assert "expected" in outcome.output


def test_units_that_do_more_take_more_time() -> None:
    """Of many images the busiest one counts whole, of one image all but weights."""
    cycles = {"matrix": 1e6, "special": 4e5, "shared": 0.0, "issue": 0.0, "memory": 0.0, "weights": 2e5}
    row = {"batch": 256, "operator": "inverted_residual", "shape": {}, "cycles": cycles, "waits": 4.0}
    assert predictions.microseconds(row) == pytest.approx(2 + (1e6 + 3e5) / 1700)
    assert predictions.busiest(row) == "matrix"
    one = {**row, "batch": 1}
    assert predictions.microseconds(one) == pytest.approx((2800 + 1.4e6 + 2400) / 1980)
    assert predictions.busiest({**one, "cycles": dict.fromkeys(cycles, 10.0)}) == "launch"
