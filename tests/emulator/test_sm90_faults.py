"""What hardware only punishes at random, planted into a kernel that is right without it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from emulator.build import load
from tests.cuda.test_sm90_device import pipeline

emulated: Any = load()
Fault = emulated.Sm90Fault
SEEDS = range(12)

FAULTS = {
    "factor_without_fence": r"wgmma at .* reads byte \d+ of block \d, which thread \d+ stored without fence_async",
    "result_without_fence": r"store_bulk at .* which thread \d+ stored without fence_async",
    "sums_without_fence": "no wgmma_fence since the sums were written or waited for",
    "products_not_waited_for": "ends before wgmma_wait for the product at|in flight reads it",
    "lanes_disagree": r"divergent wgmma: lane \d+ at sm90_faults.h:\d+",
    "warps_missing": "expected the same products of warps 4 n to 4 n [+] 3, got 0 of warp 0, 6 of warp 1",
    "factor_overwritten": "is written at .* while a product or a copy in flight reads it",
    "piece_released_early": "is written at .* while a product or a copy in flight reads it",
    "piece_read_early": "is read at .* while a copy to it is in flight",
    "result_overwritten": "is written at .* while a product or a copy in flight reads it",
    "expects_too_much": r"deadlock: .* at barrier_wait .* misses 0 arrivals and 16 bytes",
    "expects_too_little": r"deadlock: .* at barrier_wait .* misses 0 arrivals and -16 bytes",
    "too_many_arrivals": "in flight reads it|while a copy to it is in flight",
    "init_without_fence": r"a barrier is used at .* without barrier_init_fence after its init at sm90_faults.h:\d+",
    "barrier_overwritten": "a barrier is overwritten",
    "store_left_in_flight": "thread 32 ends before store_bulk_wait for its stores",
    "named_barrier_of_two_sizes": "named barrier 1: expected (256|160) threads as others do, got (160|256)",
    "registers_beyond_the_block": r"deadlock: .* take_registers<240> finds \d+ registers",
    "no_grid_wait": "global memory: (from|to) before grid_wait",
    "moved_load": "from by load_global at .*, which may be moved to before grid_wait: expected load_written or",
    "outside_of_shared_memory": r"4 bytes at block \d's byte \d+ outside of the \d+ bytes of the launch",
    "remote_after_the_end": "which has ended|a block ends while what needs|ends while phase 1 expects -4 more",
    "remote_not_waited_for": "is read at .* while a copy to it is in flight|a block ends while what needs its shared",
}
"""What is reported of each, at least once in a dozen orders."""
SEEN_AT_ONCE = set(FAULTS) - {
    "piece_released_early",
    "piece_read_early",
    "too_many_arrivals",
    "remote_after_the_end",
    "remote_not_waited_for",
}
"""Those that no order hides."""


def run(fault: str, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What the kernel writes, and what it should."""
    pieces, weight, expected = pipeline()
    found = np.full(expected.shape, np.nan, np.float32)
    emulated.set_options(seed, False)
    try:
        emulated.run_faulty(getattr(Fault, fault), pieces, weight, found)
    finally:
        emulated.set_options(0, False)
    return found, expected


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_fault_every_order_is_right(seed: int) -> None:
    found, expected = run("none", seed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str) -> None:
    messages = []
    for seed in SEEDS:
        try:
            run(fault, seed)
        except emulated.Error as error:
            messages.append(str(error))
    assert all(re.search(FAULTS[fault], message) for message in messages), messages
    assert len(messages) == len(SEEDS) if fault in SEEN_AT_ONCE else messages


PHASES = {
    "missed": "no thread has waited for phase 1, and the one after it has ended",
    "taken_twice": r"thread 0 at sm90_faults.h:\d+ waited a second time for phase 2, and the barrier went on",
    "overtaken": r"missed the end of phase \d|no thread has waited for phase \d",
}


@pytest.mark.parametrize("fault", ["none", *PHASES])
def test_waits_for_phases_of_barriers(fault: str) -> None:
    for seed in SEEDS:
        emulated.set_options(seed, False)
        try:
            if fault == "none":
                emulated.run_phases(emulated.PhaseFault.none)
            else:
                with pytest.raises(emulated.Error, match=PHASES[fault]):
                    emulated.run_phases(getattr(emulated.PhaseFault, fault))
        finally:
            emulated.set_options(0, False)


def test_sums_are_no_numbers_before_the_wait() -> None:
    found, expected = run("sums_read_early", 0)
    assert np.isnan(found[:, 0, 0]).all()
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-4)
