"""Best rates of the machine: matrix products and copies."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from testing.threads import using_threads

CEILING_SECONDS = 1.0


def matmul_rate(dtype: torch.dtype, threads: int, size: int = 1536, repeats: int = 8) -> float:
    """MACs in a second, in 10⁹, of the best of several products of square matrices in PyTorch.

    Smaller matrices have to do where these take too long: bfloat16 on a processor that has no instructions for it.
    """
    small = size // 6
    slow = size**3 / 1e9 / _matmul_rate(dtype, 1, small, 2) > CEILING_SECONDS
    return _matmul_rate(dtype, threads, small if slow else size, repeats)


def _matmul_rate(dtype: torch.dtype, threads: int, size: int, repeats: int) -> float:
    a, b = torch.rand(size, size).to(dtype), torch.rand(size, size).to(dtype)
    return size**3 / 1e9 / _best(lambda: torch.mm(a, b), threads, repeats)


COPIES = (0.5, 2.0, 8.0, 32.0, 256.0)
"""10⁶ bytes that are read and written in a copy; no cache holds the most."""


def copy_rate(threads: int, megabytes: float = COPIES[-1], repeats: int = 8) -> float:
    """Bytes read and written in a second, in 10⁹, of the best of several copies, of so many 10⁶ bytes together."""
    source = torch.ones(round(megabytes * 1e6 / 8))
    target = torch.empty_like(source)
    return 2 * source.nbytes / 1e9 / _best(lambda: target.copy_(source), threads, repeats)


def _best(call: Callable[[], Any], threads: int, repeats: int) -> float:
    """Seconds of the fastest of several calls after a first one, or of as many as there is time for."""
    with using_threads(threads):
        call()
        best, end = float("inf"), time.perf_counter() + CEILING_SECONDS
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            now = time.perf_counter()
            best = min(best, now - start)
            if now > end:
                break
        return best


def machine_peak(threads: int, dtypes: Iterable[str] = ("float32",)) -> dict[str, Any]:
    """Best rates of the machine, by number of threads: the most that was measured, not what a data sheet says."""
    counts = sorted({1, threads})
    wanted = sorted({"float32", *dtypes})
    return {
        "meaning": "peak_gmac_s: best product of two 1536x1536 matrices measured in PyTorch, 1e9 multiply-accumulates "
        "per second, by type and threads; copy_gb_s: best copy of 128 MB measured, 1e9 bytes read and written per "
        "second, by threads; copy_gb_s_by_mb: of smaller ones too, by 1e6 bytes read and written, on all threads",
        "peak_gmac_s": {
            dtype: {str(n): round(matmul_rate(getattr(torch, dtype), n), 1) for n in counts} for dtype in wanted
        },
        "copy_gb_s": {str(n): round(copy_rate(n), 1) for n in counts},
        "copy_gb_s_by_mb": {str(mb): round(copy_rate(threads, mb, max(8, round(64 / mb))), 1) for mb in COPIES},
    }


def better(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The larger of each number in two measurements of a machine."""
    return {
        name: better(value, second[name]) if isinstance(value, Mapping) else max(value, second[name])
        for name, value in first.items()
    }


def peak_for(machine: Mapping[str, Any], dtype: str, threads: int) -> float:
    """The rate to compare with: the better of float32's and the type's own, which some processors emulate."""
    rates = machine["peak_gmac_s"]
    return max(rates[name][str(threads)] for name in {"float32", dtype})
