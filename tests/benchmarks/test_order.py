"""The automatic order of backends, and of kernels within one, by what was measured: none is faster than the first."""

import json
from typing import Any

from benchmarks.run import RESULTS

FOLDER = RESULTS / "gpu-h200"
NOISE = 1.02

EARLIER = {(64, 256, 96), (64, 256, 64), (160, 640, 1000)}
"""Channels of regions that were slower with 8 images by the kernel for few of them, which takes fewer since."""


def rows(name: str) -> list[dict[str, Any]]:
    found = json.loads((FOLDER / name).read_text(encoding="utf-8"))["rows"]
    return [row for row in found if row.get("reason") is None]


def key(operator: str, shape: str) -> tuple[str, str]:
    """An operator and its channels and size, as the table of operators writes them."""
    return operator, shape.partition(", kernel")[0].partition(", layers")[0]


def written(row: dict[str, Any]) -> tuple[str, str]:
    """The same of a row of regions."""
    shape = row["shape"]
    inputs = f"{shape['inputs']}+{shape['second_inputs']}" if "second_inputs" in shape else str(shape["inputs"])
    middle = shape.get("expanded", shape.get("hidden_size"))
    channels = [inputs, *([] if middle is None else [str(middle)]), str(shape["outputs"])]
    return row["operator"], f"{'→'.join(channels)}, {shape['height']}×{shape['width']}"


def test_kernels_of_compute_capability_9_are_not_slower_than_those_for_every_chip() -> None:
    slower = [row for row in rows("gpu-sm90-regions.json") if row["us"] > NOISE * row["before_us"]]
    assert {row["batch"] for row in slower} <= {8}
    assert {tuple(row["shape"].get(n) for n in ("inputs", "expanded", "outputs")) for row in slower} == EARLIER


def test_cuda_kernels_are_not_slower_than_other_backends() -> None:
    """On an H200 with 256 images, where regions were measured by every backend."""
    others: dict[tuple[str, str], list[float]] = {}
    for row in rows("gpu-ops.json"):
        if row["kind"] == "operator" and row["provider"] != "cuda":
            others.setdefault(key(row["operator"], row["shape"]), []).append(1e3 * row["median_ms"])
    compared = 0
    for row in rows("gpu-sm90-regions.json"):
        times = others.get(written(row), [])
        if times and (row["model"], row["batch"]) == ("S", 256):
            compared += 1
            assert row["us"] <= NOISE * min(times), written(row)
    assert compared == len(others)
