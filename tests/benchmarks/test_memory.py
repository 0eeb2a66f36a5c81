"""An accelerated forward needs less memory than an eager one."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.cpu.memory import added_by, forward_peak
from mobilevit_fast import native, ops

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


@pytest.mark.thorough  # of small images, test_cpu.py has a run
@pytest.mark.parametrize("size", ["S", "XS", "XXS"])
def test_accelerated_needs_less_than_eager(size: str) -> None:
    eager, accelerated = (forward_peak(kind, size, batch=8) for kind in ("eager", "accelerated"))
    assert accelerated > 10  # the result of the stem alone is 8 · 16 · 128 · 128 · 4 bytes, 8.4 MB
    assert accelerated < eager


@pytest.mark.skipif(not native.status()["cpu"].loaded, reason="the CPU library is not loaded")
def test_the_branches_of_a_segmentation_head_never_lie_side_by_side() -> None:
    side = 96
    x = torch.randn(1, 16, side, side).contiguous(memory_format=torch.channels_last)
    weights = (torch.randn(256, 16, 1, 1), torch.randn(3, 256, 16, 3, 3), torch.randn(256, 16, 1, 1))
    together = side * side * 5 * 256 * 4 / 1e6  # 47 MB
    arguments = (x, *weights, torch.randn(16, 5 * 256, 1, 1))
    with torch.no_grad():
        added = {name: added_by(lambda name=name: ops.aspp(*arguments, backend=name)) for name in ("reference", "cpu")}
    assert added["reference"] > together
    assert added["cpu"] < together / 5  # less than one branch
