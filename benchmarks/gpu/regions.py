"""Every region of the three sizes by itself on compute capability 9.0: the kernels that are chosen, and those for every
chip on the same card in the same process.

Its results say which kernels come first (:mod:`benchmarks.order`), and stand in the table of regions.
"""

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import relative_error
from benchmarks.floors import bytes_of
from benchmarks.gpu.models import DeviceLost, check
from benchmarks.gpu.ops import Work, works
from benchmarks.gpu.results import Results, without_row
from benchmarks.operators import builder, materialized
from benchmarks.registry import SIZES
from benchmarks.timing import interleaved, reason_of
from mobilevit_fast.kernels.cuda.rules import packed_for_every_chip
from mobilevit_fast.ops import OPS

CAPABILITY = "9.0"
ROUNDS = 9
CALLS = 20
"""In a graph, of few images, whose inputs the second-level cache holds anyway."""
MANY_CALLS = 8
"""Of many, each with images of its own up to twice that cache."""
CHECKED = 2
"""Images of which the errors are."""


class Task(NamedTuple):
    """Measurements of one process: the regions of a size of model, and the seconds it may take."""

    size: str
    batch: int
    seconds: float

    @property
    def name(self) -> str:
        """For people."""
        return f"regions of {self.size}, float16, batch {self.batch}"


def tasks() -> list[Task]:
    """Everything, in order of importance."""
    return [Task(size, batch, 25) for batch in (1, 8, 256) for size in SIZES]


def key_of(task: Task, work: Work) -> dict[str, Any]:
    """Fields that tell a row from all others."""
    return {
        "kind": "region",
        "model": task.size,
        "dtype": "float16",
        "batch": task.batch,
        "operator": work.call.op,
        "shape": dict(work.call.shape),
        "residual": bool(work.call.named.get("residual")),
    }


def missing(task: Task, rows: Sequence[dict[str, Any]], image_size: int = 256) -> Iterator[dict[str, Any]]:
    """Keys of the rows that a task should have given and has not."""
    return without_row((key_of(task, work) for work in works(task.size, task.batch, image_size)), rows)


def measure(task: Task, results: Results, gpu: Any, seconds: float, *, image_size: int = 256) -> None:
    """Add the rows of a task that the results do not have yet.

    Raises:
        DeviceLost: an error after which the device does not answer; rows of others are missing then.
    """
    end = time.monotonic() + seconds
    pending = list(missing(task, results.rows, image_size))
    for work in works(task.size, task.batch, image_size):
        key = key_of(task, work)
        if key not in pending or time.monotonic() >= end:
            continue
        try:
            if gpu.capability != CAPABILITY:
                raise RuntimeError(f"expected compute capability {CAPABILITY}, got {gpu.capability}")
            found = _measure_work(work, gpu, end - time.monotonic())
            results.append({**key, "calls": work.calls, **found, "reason": None})
        except DeviceLost:
            raise
        except Exception as error:  # of a kernel, or a lack of memory: the next region may fit
            results.append({**key, "reason": reason_of(error)})
            check(gpu)
        gpu.release()
    for key in missing(task, results.rows, image_size):
        results.append({**key, "reason": "no time was left for it"})


@torch.inference_mode()
def _measure_work(work: Work, gpu: Any, seconds: float) -> dict[str, Any]:
    call = work.call
    arguments = materialized(call, gpu.device)
    images = [a for a in (arguments["x"], arguments.get("x2")) if isinstance(a, Tensor)]
    rest = tuple(arguments.values())[len(images) :]
    few = bytes_of(*images) < gpu.l2_bytes
    calls = CALLS if few else MANY_CALLS
    count = 1 if few else min(MANY_CALLS, math.ceil(2 * gpu.l2_bytes / bytes_of(*images)))
    pool = [tuple(images), *(tuple(torch.randn_like(x) for x in images) for _ in range(count - 1))]
    functions = {"us": builder("cuda", call, arguments)}
    with packed_for_every_chip():
        functions["before_us"] = builder("cuda", call, arguments)
    turns = {}
    for name, function in functions.items():
        inputs = [pool[i % count] for i in range(calls)]
        turns[name] = gpu.capture(lambda function=function, inputs=inputs: [function(*x) for x in inputs][-1])[0]
    first = [x[:CHECKED] for x in images]
    double = [a.double() if isinstance(a, Tensor) else a for a in (*first, *rest)]
    exact = OPS[call.op].reference(*double)
    errors = {
        "error": relative_error(functions["us"](*images)[:CHECKED], exact),
        "pytorch_error": relative_error(OPS[call.op].reference(*first, *rest), exact),
    }
    if not all(map(math.isfinite, errors.values())):
        raise RuntimeError("expected finite numbers, got others")
    kernels = gpu.kernels(lambda: functions["us"](*images))
    timed = interleaved(turns, gpu, seconds, ROUNDS)
    if timed.reasons:
        raise RuntimeError("; ".join(timed.reasons.values()))
    times = {name: round(1e6 * statistics.median(taken) / calls, 2) for name, taken in timed.seconds.items()}
    return {**times, **{name: float(f"{e:.3g}") for name, e in errors.items()}, "kernels": kernels}
