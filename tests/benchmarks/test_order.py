"""The order of backends on a GPU, and of kernels within one, by what was measured: none is faster than the first."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import order
from benchmarks.__main__ import app
from benchmarks.run import RESULTS
from mobilevit_fast.kernels import order as chosen
from mobilevit_fast.ops import OPS

FOLDER = RESULTS / "gpu-h200"
NOISE = 1.02
GPU = torch.device("cuda", 0)

EARLIER = {(64, 256, 96), (64, 256, 64), (160, 640, 1000)}
"""Channels of regions that were slower with 8 images by the kernel for few of them, which takes fewer since."""


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 9.0, as far as anybody asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=9, minor=0))


def test_kernels_of_compute_capability_9_are_not_slower_than_those_for_every_chip() -> None:
    slower = [row for row in order.rows(FOLDER, "gpu-sm90-regions.json") if row["us"] > NOISE * row["before_us"]]
    assert {row["batch"] for row in slower} <= {8}
    assert {tuple(row["shape"].get(n) for n in ("inputs", "expanded", "outputs")) for row in slower} == EARLIER


def test_the_table_is_that_of_the_committed_results() -> None:
    assert chosen.FILE.read_text(encoding="utf-8") == order.text(RESULTS)
    outcome = CliRunner().invoke(app, ["order"])
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.usefixtures("hopper")
def test_no_region_that_was_measured_runs_by_a_slower_backend() -> None:
    compared = 0
    for operator, entries in order.measured(FOLDER).items():
        for entry in entries:
            dtype, times = getattr(torch, entry["dtype"]), entry["microseconds"]
            first, *_ = chosen.order_on_gpu(GPU, operator, dtype, entry["sizes"])
            assert times[first] <= NOISE * min(times.values()), (operator, entry)
            compared += 1
    assert compared == 13


@pytest.mark.usefixtures("hopper")
def test_what_was_faster_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    op = OPS["conv2d_bias_act"]
    weights = (torch.zeros(4, 6, 3, 3, dtype=torch.float16), None, None)
    arguments = dict(zip(op.argument_names, (None, None, *weights, 1, 1, 1, "silu"), strict=True))
    sizes = op.declaration.sizes(op.name, None, weights)
    assert op._order(GPU, torch.float16, arguments) == chosen.USUAL
    entry = {"dtype": "float16", "sizes": sizes, "microseconds": {"cuda": 3.0, "triton": 1.0}}
    monkeypatch.setattr(chosen, "ORDERS", chosen.orders({"9.0": {op.name: [entry]}}))
    assert op._order(GPU, torch.float16, arguments) == ("triton", "cuda", "reference")
    assert op._order(GPU, torch.bfloat16, arguments) == chosen.USUAL
    assert op._order(torch.device("cpu"), torch.float16, arguments) == ("cpu", "reference")
    entry["microseconds"] = {"reference": 1.0}
    monkeypatch.setattr(chosen, "ORDERS", chosen.orders({"9.0": {op.name: [entry]}}))
    assert op._order(GPU, torch.float16, arguments) == ("reference", "cuda", "triton")


def test_on_other_chips_the_usual_order_holds(monkeypatch: pytest.MonkeyPatch, hopper: None) -> None:
    (entry, *_) = order.measured(FOLDER)["conv2d_bias_act"]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=8, minor=0))
    reverse = {**entry, "microseconds": {"cuda": 2.0, "triton": 1.0}}
    monkeypatch.setattr(chosen, "ORDERS", chosen.orders({"9.0": {"conv2d_bias_act": [reverse]}}))
    assert chosen.order_on_gpu(GPU, "conv2d_bias_act", torch.float16, entry["sizes"]) == chosen.USUAL


def test_a_table_of_other_results_is_told_and_replaced(tmp_path: Any) -> None:
    out = tmp_path / "order.json"
    out.write_text(json.dumps({"chips": {}}), encoding="utf-8")
    assert CliRunner().invoke(app, ["order", "--out", str(out)]).exit_code == 1
    assert CliRunner().invoke(app, ["order", "--out", str(out), "--update"]).exit_code == 0
    assert CliRunner().invoke(app, ["order", "--out", str(out)]).exit_code == 0
