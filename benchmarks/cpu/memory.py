"""Peak memory of a forward on the CPU: `python -m benchmarks memory`.

What a forward adds to the resident memory of a process that holds the model and its images already. Every number comes
from a process of its own. It warms up with a small image first, so that code, threads and packed weights are not
counted, but all working memory is, also what threads keep for later calls.
"""

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.registry import SIZES

KINDS = ("eager", "accelerated")
# Freed blocks of more than 64 KiB go back to the system at once, so that what stays resident is in use.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_WAIT_POLICY": "PASSIVE"}
_REPOSITORY = Path(__file__).resolve().parents[2]


def forward_peak(kind: str, size: str, batch: int, image_size: int = 256, threads: int = 2) -> float:
    """10⁶ bytes that a forward of transformers' model needs at its peak, "eager" or "accelerated", in a new process."""
    wanted = json.dumps([kind, size, batch, image_size, threads])
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.cpu.memory", wanted],
        cwd=_REPOSITORY,
        env={**os.environ, **_MALLOC},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(f"{kind} {size}: {result.stderr[-2000:]}")
    return float(result.stdout.split()[-1])


def added_by(call: Callable[[], object]) -> float:
    """10⁶ bytes by which a call raises the resident memory of this process at its peak (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    before = _resident("VmRSS")
    call()
    return (_resident("VmHWM") - before) * 1024 / 1e6


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, f"there is no {field} in /proc/self/status"
    return int(found[1])


def _measure(kind: str, size: str, batch: int, image_size: int, threads: int) -> float:
    import torch

    import mobilevit_fast as mvf
    from mobilevit_fast.config import MobileViTConfig
    from testing.pairs import CLASSIFICATION, theirs_for

    torch.set_num_threads(threads)
    config = MobileViTConfig.preset(SIZES[size], num_labels=1000, image_size=image_size)
    model = theirs_for(CLASSIFICATION, config)
    if kind == "accelerated":
        mvf.accelerate(model, strict=True)
    images = torch.rand(batch, 3, image_size, image_size)
    with torch.inference_mode():
        for _ in range(3):  # weights are packed, a call of this kind is recorded, and made again
            model(images[:1, :, :64, :64])
        return added_by(lambda: model(images))


def memory(
    batch: Annotated[int, typer.Option(help="Images in a call.", min=1)] = 8,
    image_size: Annotated[int, typer.Option(help="Pixels in height and width.", min=32)] = 256,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 2,
) -> None:
    """Print the peak of every size, eager and accelerated."""
    print(f"peak memory of a forward, batch {batch}, {image_size} pixels, MB")
    print(f"{'model':8}" + "".join(f"{kind:>14}" for kind in KINDS))
    for size in SIZES:
        peaks = [forward_peak(kind, size, batch, image_size, threads) for kind in KINDS]
        print(f"{size:8}" + "".join(f"{peak:14.1f}" for peak in peaks))


if __name__ == "__main__":  # the process that measures
    print(_measure(*json.loads(sys.argv[1])))
