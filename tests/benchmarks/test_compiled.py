"""The Triton kernels of the three sizes, compiled for chips that are not here: no spills, matrix units, memory."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from benchmarks import compile_report
from benchmarks.compile_report import BATCHES
from benchmarks.compiled import CHIPS, MODES, Row, distinct, identity, inspect, model_launches
from benchmarks.launches import recorded_launches
from mobilevit_fast.kernels.triton import rules, tiles
from testing.paths import REPOSITORY
from testing.tiers import thorough_where

IDENTITY = ("kernel", "chip", "mode", "tile", "variant", "source")


@pytest.fixture(scope="module")
def report() -> list[dict[str, Any]]:
    """The committed report."""
    rows: list[dict[str, Any]] = json.loads(compile_report.OUT.read_text(encoding="utf-8"))["rows"]
    return rows


def test_the_committed_report_has_no_problem(report: list[dict[str, Any]]) -> None:
    assert compile_report.problems(report) == []


def test_the_committed_report_is_of_the_compiler_that_the_project_pins() -> None:
    versions = json.loads(compile_report.OUT.read_text(encoding="utf-8"))["versions"]
    pinned = re.search(
        r"^TRITON := triton==(\S+)$", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert pinned is not None
    assert versions["triton"] == pinned[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chip", CHIPS)
def test_the_committed_report_is_of_these_kernels(chip: str, mode: str, report: list[dict[str, Any]]) -> None:
    """Same kernels to the letter, same tiles, same constants; `python -m benchmarks compile-report` renews it."""
    present = {tuple(identity(chip, mode, one).values()) for one in distinct(model_launches(chip, mode, BATCHES))}
    reported = {tuple(row[name] for name in IDENTITY) for row in report if (row["chip"], row["mode"]) == (chip, mode)}
    assert present == reported


# Of these very kernels and compiler, the committed report says the same; one chip shows that it is said truly.
@pytest.mark.parametrize("chip", thorough_where(CHIPS, lambda chip: chip != "gfx942"))
def test_a_share_of_the_kernels_compiles_well(chip: str) -> None:
    """Each kernel for one of the chips, in float16."""
    rows = compile_report.rows_of((chip, "float16", list(CHIPS).index(chip), len(CHIPS)))
    assert len(rows) > 20
    assert compile_report.problems(rows) == []


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["bfloat16", "float32", "tf32"])
def test_some_kernels_of_other_types_compile_well(mode: str) -> None:
    rows = [inspect("sm_90", mode, one).to_dict() for one in distinct(model_launches("sm_90", mode, [256], ["small"]))]
    assert compile_report.problems(rows) == []


@pytest.mark.parametrize(
    ("kernel", "width", "heads"),
    [
        ("attention_kernel", rules.MAX_HEAD_DIM, 1),
        ("attention_kernel", 1024, 4),
        ("norm_mlp_kernel", rules.MAX_FEATURES, 32),
    ],
)
@pytest.mark.parametrize(("chip", "shared_memory"), [("gfx942", 64 << 10), ("sm_80", 99 << 10)])
def test_the_widest_tokens_fit_small_chips(chip: str, shared_memory: int, kernel: str, width: int, heads: int) -> None:
    """99 KiB are what a program has on chips of compute capability 8.6 and 8.9."""
    sizes = [
        (4, 64, 32, 32),
        (width, 64, 1, 1),
        (width,),
        (1, width),
        (1, width),
        (1, 3 * width, width),
        (1, 3 * width),
    ]
    sizes += [(1, width, width), *[(1, width)] * 3, (1, width, width), (1, width), (1, width, width), (1, width)]
    sizes += [(width,), (width,), (64, width, 1, 1), (64,), (64,)]
    arguments = [torch.empty(size, dtype=torch.float16, device="meta") for size in sizes]
    with tiles.for_chip(chip):
        launches = recorded_launches("mobilevit_transformer", [*arguments, heads, [2, 2], 1e-5, "silu", "silu"])
    (found,) = (one for one in launches if one.kernel.fn.__name__ == kernel)
    assert inspect(chip, "float16", found).shared_memory <= shared_memory


def test_problems_are_named() -> None:
    good = Row("k", "sm_90", "float16", "block_m=16", "", "", 64, 1024, 0, 8, 4).to_dict()
    assert compile_report.problems([good]) == []
    for field, value, text in (
        ("spilled", 8, "8 bytes spilled at 64 registers"),
        ("shared_memory", 1 << 20, "1048576 bytes of shared memory"),
        ("programs", 0, "a processor cannot hold a program"),
        ("products", 0, "no instruction of a matrix unit"),
    ):
        (found,) = compile_report.problems([{**good, field: value}])
        assert found == f"k on sm_90, float16, block_m=16, : {text}"
