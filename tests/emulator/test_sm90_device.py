"""Counts of warpgroups' products, and the wrappers that are generated for them."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from emulator.build import load
from testing.paths import REPOSITORY

emulated: Any = load()
SM90 = REPOSITORY / "csrc/cuda/sm90"


def test_counts_of_products() -> None:
    emulated.take_launches()
    emulated.run_case("product", [96, 0, 1], np.zeros((160, 64), np.float16), np.zeros((64, 96), np.float32))
    (launch,) = emulated.take_launches()
    assert launch["kernel"].split("<")[0].endswith("::ProductOf")
    assert launch["wgmma_macs"] == 64 * 96 * 64
    assert launch["wgmma_clocks"] == 4 * 96 // 2
    assert launch["products"] == 0
    assert launch["arrays"] == {"from": (160 * 64 * 2, 0), "to": (0, 64 * 96 * 4)}


def test_wrappers_are_what_their_generator_writes() -> None:
    spec = importlib.util.spec_from_file_location("generate_wgmma", SM90 / "generate_wgmma.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (SM90 / "wgmma.h").read_text(encoding="utf-8") == module.text()
