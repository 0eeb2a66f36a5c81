"""Memory of the C++ kernels: huge pages for large results, and what is said where there is none left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mobilevit_fast.ops import OPS
from tests.ops.variants import EXTENSION

assert EXTENSION is not None  # else the import has skipped this file
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from Linux's /proc")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def flags_of_memory_at(address: int) -> list[str]:
    """The kernel's flags of the mapping in which an address lies."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise AssertionError("no mapping holds the address")


@LINUX
@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="the system has no transparent huge pages")
def test_large_results_ask_for_huge_pages() -> None:
    """In a fresh process: a heap that has grown takes large results too."""
    program = "from tests.ops.test_native_memory import huge_pages; print(*map(huge_pages, (384, 256)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def huge_pages(side: int) -> bool:
    """Whether memory of a result of 64 channels in so many rows and columns is to be huge pages."""
    x, weight = torch.randn(1, 64, side, side), torch.randn(64, 1, 3, 3)
    y = OPS["depthwise_conv2d"].run("cpu", (x, weight, None, None, [1, 1], [1, 1], [1, 1], "silu"))
    return "hg" in flags_of_memory_at(y.data_ptr() + y.nbytes // 2)


PROGRAM = """
import resource, sys
import torch
from mobilevit_fast import ops
from testing.samples import SAMPLES

torch.set_num_threads(int(sys.argv[1]))
_, *rest = next(SAMPLES["mobilevit_transformer"]()).arguments
channels = rest[0].shape[1]
run = ops.OPS["mobilevit_transformer"].overload("cpu")
small, large = (torch.randn(2, side, side, channels).permute(0, 3, 1, 2) for side in (8, 512))
_, *rest = ops.OPS["mobilevit_transformer"].arguments_for("cpu", (small, *rest))
expected = run(small, *rest)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + large.nbytes + 2**23, hard))  # enough for the result
try:
    run(large, *rest)
except RuntimeError as error:
    print(error)
assert torch.equal(run(small, *rest), expected)
print("still works")
"""


@LINUX
@pytest.mark.parametrize("threads", [1, 2])
def test_too_little_memory_is_an_error_that_says_so(threads: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    first, last = result.stdout.splitlines()
    assert first.startswith("mobilevit_fast: no memory for the ")
    assert first.endswith(" bytes of working memory that a thread needs for this image")
    assert last == "still works"
