"""Floors of the regions: against counts by hand, other totals of the network, and what PyTorch counts."""

import json
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

from benchmarks import floors, roofline
from benchmarks.__main__ import app
from mobilevit_fast.ops import OPS
from testing.shapes import InvertedResidualShape, all_calls, inverted_residuals, preset_calls

# Analytic totals of the network at 256 px in two bytes a number: products, exponentials, bytes unfused and fused.
TOTALS = {
    "small": (2_000_831_488, 15_052_800, 73_998_800, 10_815_440),
    "x_small": (1_025_911_808, 12_906_496, 58_506_704, 8_579_024),
    "xx_small": (407_364_096, 6_228_992, 26_162_384, 5_531_600),
}
CHIP = floors.Chip("a chip", 1e12, {"float16": 1e14}, 100, 1e9)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["roofline", *arguments])


def works(preset: str, **settings: Any) -> list[floors.Work]:
    calls = preset_calls(preset, 1, 256, torch.float16, **settings)
    return [floors.work_of(call.op, call.named) for call in calls]


@pytest.mark.parametrize("preset", TOTALS)
def test_totals_are_those_of_the_network(preset: str) -> None:
    """Those totals fuse other regions: each layer of a transformer by itself, and the 1x1 convolutions around the
    layers with the 3x3 convolutions, of whose second they leave out that it reads the block's input.
    """
    products, exponentials, unfused, fused = TOTALS[preset]
    found = works(preset)
    assert sum(work.products for work in found) == products
    assert sum(work.exponentials for work in found) == exponentials
    assert sum(work.unfused_bytes for work in found) == unfused
    for call in preset_calls(preset):
        if call.op == "mobilevit_transformer":
            s = call.shape
            pixels = s["height"] * s["width"]
            fused += 2 * pixels * (5 * s["inputs"] - (2 * s["layers"] + 2) * s["hidden_size"])
    assert sum(work.fused_bytes for work in found) == fused


def test_an_inverted_residual_by_hand() -> None:
    """Of two images of 8x8 pixels, from 4 channels over 16 to 4, in float16."""
    sizes = {"expand": (16, 4, 1, 1), "depthwise": (16, 1, 3, 3), "project": (4, 16, 1, 1)}
    named: dict[str, Any] = {"x": torch.empty(2, 4, 8, 8, dtype=torch.float16, device="meta")}
    for name, shape in sizes.items():
        named[f"{name}_weight"] = torch.empty(shape, dtype=torch.float16, device="meta")
        named |= {f"{name}_{part}": torch.empty(shape[0], device="meta") for part in ("scale", "bias")}
    named |= {"stride": [1, 1], "dilation": [1, 1], "residual": True, "activation": "silu"}
    work = floors.work_of("inverted_residual", named)
    pixels = 2 * 8 * 8
    assert work.products == pixels * (4 * 16 + 9 * 16 + 16 * 4)
    assert work.exponentials == 2 * 16 * pixels
    numbers = (4 + 16) + (16 + 16) + (16 + 4 + 4)  # the last reads the input again, to add it
    assert work.unfused_bytes == 2 * numbers * pixels
    assert work.fused_bytes == 2 * (4 + 4) * pixels
    assert work.weight_bytes == 2 * (64 + 144 + 64) + 4 * 2 * (16 + 16 + 4)
    strided = floors.work_of("inverted_residual", {**named, "stride": [2, 2], "residual": False, "activation": "relu"})
    assert strided.products == pixels * 4 * 16 + pixels // 4 * (9 * 16 + 16 * 4)
    assert strided.exponentials == 0
    assert strided.fused_bytes == 2 * (4 * pixels + 4 * pixels // 4)


def test_products_are_those_that_pytorch_counts() -> None:
    for call in all_calls():
        with FlopCounterMode(display=False) as counter:
            OPS[call.op].reference(*call.named.values())
        assert counter.get_total_flops() == 2 * floors.work_of(call.op, call.named).products, (call.op, call.shape)


def test_tokens_of_a_resized_image_are_counted() -> None:
    """7x9 pixels are 8x10 ones of patches of 2x2; the convolutions around them see 7x9."""
    (call,) = [c for c in preset_calls("xx_small", 1) if c.op == "mobilevit_transformer" and c.shape["height"] == 8]
    named = {**call.named, "x": torch.empty(1, 80, 7, 9, device="meta")}
    with FlopCounterMode(display=False) as counter:
        OPS[call.op].reference(*named.values())
    assert counter.get_total_flops() == 2 * floors.work_of(call.op, named).products


def test_a_floor_is_the_largest_time() -> None:
    floor = CHIP.floor(floors.Work(2 * 10**8, 3 * 10**6, 0, 10**6, 5), "float16")
    assert floor == (1e-6, 2e-6, 3e6 / 1.6e12)
    assert (floor.least, floor.bound) == (2e-6, "products")
    unknown = CHIP._replace(processors=0).floor(floors.Work(1, 10**12, 0, 10**6, 0), "float16")
    assert (unknown.exponentials, unknown.bound) == (None, "memory")


def test_everything_is_proportional_to_the_images() -> None:
    one, many = (roofline.rows_of("XXS", batch, "float16", CHIP, 64) for batch in (1, 8))
    for first, second in zip(one, many, strict=True):
        assert second["floor_us"] == pytest.approx(8 * first["floor_us"])
        assert second["weight_bytes"] == first["weight_bytes"]


def test_rows_and_totals_for_programs() -> None:
    result = invoke("--size", "XXS", "--chip", "H100", "--bandwidth", "2", "--rate", "100", "--batch", "2", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.output)
    assert content["conditions"]["bandwidth_b_s"] == 2e12
    assert content["conditions"]["products_s"] == 1e14
    rows, totals = content["rows"], content["totals"]
    assert sum(row["calls"] for row in rows) == totals["calls"] == 18
    assert totals["products"] == 2 * TOTALS["xx_small"][0]
    assert totals["products_us"] == pytest.approx(totals["products"] / 1e14 * 1e6)
    assert totals["floor_us"] == pytest.approx(sum(row["calls"] * row["floor_us"] for row in rows))
    assert totals["images_s"]["floor"] == pytest.approx(2e6 / totals["floor_us"])
    assert totals["images_s"]["floor"] <= min(totals["images_s"][name] for name in ("memory", "products"))


@pytest.mark.parametrize("chip", [*floors.CHIPS, "RTX 4090"])
def test_a_table_for_every_chip(chip: str) -> None:
    result = invoke("--size", "XXS", "--chip", chip, "--dtype", "bfloat16", "--segmentation")
    assert result.exit_code == 0, result.output
    assert "aspp 80→256→256, 16×16" in result.output
    assert "images/s at most: memory" in result.output


def test_the_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "copy_rate", lambda threads: 10.0)
    rates = {torch.float32: 50.0, torch.bfloat16: 200.0, torch.float16: 0.5}
    monkeypatch.setattr(roofline, "matmul_rate", lambda dtype, *_: rates[dtype])
    assert roofline.measured_cpu("bfloat16").rates == {"bfloat16": 200e9}
    assert roofline.measured_cpu("float16").rates == {"float16": 50e9}
    result = invoke("--size", "XXS", "--chip", "cpu", "--dtype", "float32", "--image-size", "64")
    assert result.exit_code == 0, result.output
    assert "0.01 TB/s, 0.05·10¹² products/s" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--size M", "--size: expected one of S, XS, XXS, got M"),
        ("--dtype int8", "--dtype: expected one of float16, bfloat16, float32, got int8"),
        ("--chip k80", "--chip: expected one of a100, h100, h200, b200, l4, rtx4090, cpu, got k80"),
        ("--bandwidth 0", "--bandwidth: expected more than 0, got 0.0"),
        ("--rate nan", "--rate: expected more than 0, got nan"),
    ],
)
def test_bad_options(words: str, message: str) -> None:
    result = invoke(*words.split())
    assert result.exit_code == 2
    assert message in result.stderr


def test_shapes_of_the_small_network() -> None:
    small = inverted_residuals("small")
    assert small[0] == InvertedResidualShape(16, 64, 32, 128, 1)
    assert small[-1] == InvertedResidualShape(128, 512, 160, 16, 2)
    assert {call.op for call in all_calls()} == set(OPS)
