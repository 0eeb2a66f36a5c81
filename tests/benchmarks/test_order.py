"""The order of backends on a GPU, and of kernels within one, by what was measured: none is faster than the first."""

from __future__ import annotations

import json
import re
from pathlib import Path
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
from testing.paths import REPOSITORY

FOLDER = RESULTS / "gpu-h200"
NOISE = 1.02
GPU = torch.device("cuda", 0)

EARLIER = {(64, 256, 96), (64, 256, 64), (160, 640, 1000)}
"""Channels of regions that were slower with 8 images by the kernel for few of them, which takes fewer since."""


def rows(name: str) -> list[dict[str, Any]]:
    found = json.loads((FOLDER / name).read_text(encoding="utf-8"))["rows"]
    return [row for row in found if row.get("reason") is None]


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 9.0, as far as anybody asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=9, minor=0))


def test_kernels_of_compute_capability_9_are_not_slower_than_those_for_every_chip() -> None:
    slower = [row for row in rows("gpu-sm90-regions.json") if row["us"] > NOISE * row["before_us"]]
    assert {row["batch"] for row in slower} <= {8}
    assert {tuple(row["shape"].get(n) for n in ("inputs", "expanded", "outputs")) for row in slower} == EARLIER


def test_short_sequences_are_left_to_kernels_for_every_chip_where_these_are_faster() -> None:
    """Whose time falls with the tokens; the others take as long for any number of them."""
    header = (REPOSITORY / "csrc/cuda/sm90/transformer_stack_sm90_shapes.h").read_text(encoding="utf-8")
    ((first, last, *others),) = re.findall(
        r"kLeastTokens = kTokens == 256 \? (\d+) : kTokens == 64 \? (\d+) : (\d+);", header
    )
    least = {256: int(first), 64: int(last), 16: int(others[0])}
    equal: dict[int, list[float]] = {tokens: [] for tokens in least}
    for row in rows("gpu-sm90-regions.json"):
        if (row["batch"], row["operator"]) == (256, "mobilevit_transformer"):
            tokens = row["shape"]["height"] * row["shape"]["width"] // 4
            equal[tokens].append(tokens * row["us"] / row["before_us"])
    assert all(len(found) == 3 for found in equal.values())
    assert all(max(equal[tokens]) <= least[tokens] < max(equal[tokens]) + 2 for tokens in least), equal


def test_the_table_is_that_of_the_committed_results() -> None:
    assert chosen.FILE.read_text(encoding="utf-8") == order.text(RESULTS)
    outcome = CliRunner().invoke(app, ["order"])
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.usefixtures("hopper")
def test_no_region_that_was_measured_runs_by_a_slower_kernel() -> None:
    compared = 0
    capability, found = order.measured(FOLDER)
    assert capability == "9.0"
    for operator, entries in found.items():
        for entry in entries:
            dtype, times = getattr(torch, entry["dtype"]), entry["microseconds"]
            first, *_ = chosen.order_on_gpu(GPU, operator, dtype, entry["sizes"].values)
            assert times[first] <= NOISE * min(times.values()), (operator, entry)
            compared += 1
    assert compared == 13


def test_the_table_follows_what_is_measured(tmp_path: Path) -> None:
    """Of another chip too, for which there is no file of regions, and of another type."""
    folder = tmp_path / "gpu-other"
    folder.mkdir()
    content = json.loads((FOLDER / "gpu-ops.json").read_text(encoding="utf-8"))
    content["environment"]["gpu"]["capability"] = "8.6"
    content["rows"] += [{**row, "dtype": "bfloat16"} for row in content["rows"] if row["kind"] == "operator"]
    (folder / "gpu-ops.json").write_text(json.dumps(content), encoding="utf-8")
    made = chosen.orders(json.loads(order.text(tmp_path))["chips"])
    assert {(capability, dtype) for capability, _, dtype, _ in made} == {
        ((8, 6), torch.float16),
        ((8, 6), torch.bfloat16),
    }
    key = (8, 6), "conv2d_bias_act", torch.float16
    assert made[*key, (128, 128, 3, 3)] == ("triton", "cuda", "reference")  # by the kernels for every chip
    assert made[*key, (16, 3, 3, 3)] == chosen.USUAL
    assert len(made) == 26


ENTRY = {"dtype": "float16", "sizes": {"outputs": 4, "inputs": 6, "kernel height": 3, "kernel width": 3}}


def table_of(**microseconds: float) -> chosen.Orders:
    return chosen.orders({"9.0": {"conv2d_bias_act": [{**ENTRY, "microseconds": microseconds}]}})


@pytest.mark.usefixtures("hopper")
def test_the_faster_kernel_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    op = OPS["conv2d_bias_act"]
    weights = (torch.zeros(4, 6, 3, 3, dtype=torch.float16), None, None)
    arguments = dict(zip(op.argument_names, (None, None, *weights, 1, 1, 1, "silu"), strict=True))
    assert op._order(GPU, torch.float16, arguments) == chosen.USUAL
    monkeypatch.setattr(chosen, "ORDERS", table_of(cuda=3.0, triton=1.0, reference=0.5))
    assert op._order(GPU, torch.float16, arguments) == ("triton", "cuda", "reference")
    assert op._order(GPU, torch.bfloat16, arguments) == chosen.USUAL
    assert op._order(torch.device("cpu"), torch.float16, arguments) == ("cpu", "reference")
    monkeypatch.setattr(chosen, "ORDERS", table_of(cuda=1.01, triton=1.0))
    assert op._order(GPU, torch.float16, arguments) == chosen.USUAL


@pytest.mark.usefixtures("hopper")
def test_a_graph_is_not_bound_to_the_sizes_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights whose sizes are symbols: to look them up makes them numbers."""

    def sizes() -> Any:
        raise AssertionError("read in a trace")

    monkeypatch.setattr(chosen, "ORDERS", table_of(triton=1.0, cuda=3.0))
    with pytest.raises(AssertionError, match="read in a trace"):
        chosen.order_on_gpu(GPU, "conv2d_bias_act", torch.float16, sizes)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert chosen.order_on_gpu(GPU, "conv2d_bias_act", torch.float16, sizes) == chosen.USUAL


def test_on_other_chips_the_usual_order_holds(monkeypatch: pytest.MonkeyPatch, hopper: None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=8, minor=0))
    monkeypatch.setattr(chosen, "ORDERS", table_of(triton=1.0, cuda=3.0))
    assert chosen.order_on_gpu(GPU, "conv2d_bias_act", torch.float16, ENTRY["sizes"].values) == chosen.USUAL


def test_a_table_of_other_results_is_told_and_replaced(tmp_path: Any) -> None:
    out, few = tmp_path / "order.json", tmp_path / "few.h"
    out.write_text(json.dumps({"chips": {}}), encoding="utf-8")
    files = ["order", "--out", str(out), "--few-out", str(few)]
    assert CliRunner().invoke(app, files).exit_code == 1
    assert CliRunner().invoke(app, [*files, "--update"]).exit_code == 0
    assert CliRunner().invoke(app, files).exit_code == 0
    few.write_text(few.read_text(encoding="utf-8").replace("7.22f", "7.23f"), encoding="utf-8")
    assert CliRunner().invoke(app, files).exit_code == 1


def test_few_images_take_the_faster_kernel() -> None:
    """As many as the lines through the times for one and for eight say; the emulator's tests see which kernel runs."""
    rows = order.few_rows(FOLDER / "gpu-sm90-regions.json")
    slower = {sizes for _, sizes, (_, few), (_, others) in rows if few > others}
    assert slower == {(64, 256, 96), (64, 256, 64), ()}  # heads have no sizes
    assert len(rows) == 9
