"""Counts of warpgroups' products, and the operands of their wrappers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from emulator.build import load
from testing.paths import REPOSITORY

emulated: Any = load()


def test_counts_of_products() -> None:
    emulated.take_launches()
    emulated.run_case("product", [96, 0, 1], np.zeros((160, 64), np.float16), np.zeros((64, 96), np.float32))
    (launch,) = emulated.take_launches()
    assert launch["kernel"].split("<")[0].endswith("::ProductOf")
    assert launch["wgmma_macs"] == 64 * 96 * 64
    assert launch["wgmma_clocks"] == 4 * 96 // 2
    assert launch["products"] == 0
    assert launch["arrays"] == {"from": (160 * 64 * 2, 0), "to": (0, 64 * 96 * 4)}


def test_operands_of_wrappers_are_numbered_one_after_the_other() -> None:
    text = (REPOSITORY / "csrc/cuda/sm90/wgmma.h").read_text(encoding="utf-8").replace("\\\n", "")
    names = {int(n): list(map(int, re.findall(r"%(\d+)", own))) for n, own in re.findall(r"NAMES_(\d+) (.*)", text)}
    wrappers = re.findall(r"^MVF_WGMMA\((\d+), ([\d, ]+), (MVF_SUMS.*)\)$", text, re.MULTILINE)
    assert [int(n) for n, _, _ in wrappers] == list(names)
    known: list[int] = []
    for n, others, sums in wrappers:
        known += names[int(n)]
        count = int(n) // 2
        assert known == list(range(count))
        assert list(map(int, others.split(", "))) == list(range(count, count + 7))
        columns = [(int(size) // 2, int(first)) for size, first in re.findall(r"SUMS_(\d+)\((\d+)\)", sums)]
        assert [i for size, first in columns for i in range(first, first + size)] == list(range(count))
