"""An accelerated forward needs less memory than an eager one."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.cpu.memory import added_by, forward_peak

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not Path("/proc/self/clear_refs").exists(),
    reason="peak memory is read from Linux's /proc",
)


def test_what_is_measured_is_the_peak() -> None:
    """64 MiB that are gone at the end count, what was there before does not."""
    before = torch.ones(2**24)
    added = added_by(lambda: torch.ones(2**24).sum())
    assert before.numel() == 2**24
    assert 60 < added < 90


def test_accelerated_needs_less_than_eager() -> None:
    eager, accelerated = (forward_peak(kind, "XXS", batch=8) for kind in ("eager", "accelerated"))
    assert accelerated > 10  # the result of the stem alone is 8 · 16 · 128 · 128 · 4 bytes, 8.4 MB
    assert accelerated < eager
