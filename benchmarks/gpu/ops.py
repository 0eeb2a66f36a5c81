"""Every operator of a classification model by itself, against the least time its bytes and MACs take."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import exact_and_gmac, relative_error
from benchmarks.cpu.table import shape_text
from benchmarks.floors import Chip, bytes_of, work_of
from benchmarks.gpu.models import DeviceLost, check
from benchmarks.gpu.results import Results, without_row
from benchmarks.operators import builder, materialized
from benchmarks.registry import COMPILED_OPERATORS as COMPILED
from benchmarks.registry import OPERATOR_BACKENDS as BACKENDS
from benchmarks.registry import SIZES
from benchmarks.timing import interleaved, reason_of, times_of
from mobilevit_fast.ops import OPS
from testing.shapes import OperatorCall, different, preset_calls

DTYPE = torch.float16
MAX_INPUTS = 64
"""In a graph, one call after the other."""
ROUNDS = 7
LARGEST = 4
CEILING_REPEATS = 8


class Task(NamedTuple):
    """Measurements of one process: the operators of a size of model, and the seconds it may take."""

    size: str
    batch: int
    providers: tuple[str, ...]
    seconds: float

    @property
    def name(self) -> str:
        """For people."""
        return f"operators of {self.size}, float16, batch {self.batch}: {', '.join(self.providers)}"


def tasks(size: str = "S") -> list[Task]:
    """Everything, in order of importance."""
    return [
        Task(size, 256, BACKENDS, 70),
        Task(size, 1, BACKENDS, 50),
        Task(size, 32, BACKENDS, 50),
        Task(size, 256, COMPILED, 80),
    ]


class Work(NamedTuple):
    """A call of an operator, on tensors without values, and how often a model makes it."""

    call: OperatorCall
    calls: int


def works(size: str, batch: int, image_size: int = 256) -> list[Work]:
    """The different calls of a size of model, in the order of the network."""
    return [Work(*found) for found in different(preset_calls(SIZES[size], batch, image_size, DTYPE))]


def chosen(task: Task, image_size: int = 256) -> list[Work]:
    """Those of a task: all, or, to be compiled, the inverted residuals of the most expanded elements."""
    every = works(task.size, task.batch, image_size)
    if task.providers != COMPILED:
        return every

    def expanded(work: Work) -> int:
        shape = work.call.shape
        return shape["expanded"] * shape["height"] * shape["width"]

    return sorted((w for w in every if w.call.op == "inverted_residual"), key=expanded, reverse=True)[:LARGEST]


def key_of(task: Task, work: Work, provider: str) -> dict[str, Any]:
    """Fields that tell a row from all others."""
    return {
        "kind": "operator",
        "model": task.size,
        "dtype": "float16",
        "batch": task.batch,
        "operator": work.call.op,
        "shape": shape_text(work.call.shape),
        "residual": bool(work.call.named.get("residual")),
        "provider": provider,
    }


def missing(task: Task, rows: Sequence[dict[str, Any]], image_size: int = 256) -> Iterator[dict[str, Any]]:
    """Keys of the rows that a task should have given and has not."""
    keys = (key_of(task, work, provider) for work in chosen(task, image_size) for provider in task.providers)
    return without_row(keys, rows)


def ceilings(gpu: Any) -> dict[str, Any]:
    """Best rates of the device: bytes copied, read and written, and operations of a float16 product, a second."""
    size, rows = gpu.ceiling_sizes
    source = torch.ones(size // 4, device=gpu.device)
    target = torch.empty_like(source)
    a, b = (torch.randn(rows, rows, device=gpu.device).to(DTYPE) for _ in range(2))

    def best(call: Callable[[], Any]) -> float:
        gpu.elapsed(call, 2)
        return min(gpu.elapsed(call, 1) for _ in range(CEILING_REPEATS))

    copied = 2 * source.nbytes / best(lambda: target.copy_(source))
    return {
        "kind": "ceiling",
        "copy_gb_s": float(f"{copied / 1e9:.4g}"),
        "matmul_tflop_s": float(f"{2 * rows**3 / best(lambda: torch.mm(a, b)) / 1e12:.4g}"),
        "reason": None,
    }


def measure(task: Task, results: Results, gpu: Any, seconds: float, *, image_size: int = 256) -> None:
    """Add the rows of a task that the results do not have yet.

    Raises:
        DeviceLost: an error after which the device does not answer; rows of others are missing then.
    """
    end = time.monotonic() + seconds
    known = [row for row in results.rows if row["kind"] == "ceiling"]
    if not known:
        results.append(ceilings(gpu))
        known = [row for row in results.rows if row["kind"] == "ceiling"]
        gpu.release()
    pending = list(missing(task, results.rows, image_size))
    for work in chosen(task, image_size):
        wanted = {key["provider"]: key for key in pending if key == key_of(task, work, key["provider"])}
        if wanted and time.monotonic() < end:
            try:
                _measure_work(work, wanted, known[-1], results, gpu, end - time.monotonic())
            except DeviceLost:
                raise
            except Exception as error:  # of the reference, or a lack of memory: the next operator may fit
                for key in missing(task, results.rows, image_size):
                    if key in wanted.values():
                        results.append({**key, "reason": reason_of(error)})
                check(gpu)
            gpu.release()
    for key in missing(task, results.rows, image_size):
        results.append({**key, "reason": "no time was left for it"})


@torch.inference_mode()
def _measure_work(
    work: Work, wanted: dict[str, dict[str, Any]], best: dict[str, Any], results: Results, gpu: Any, seconds: float
) -> None:
    call = work.call
    arguments = materialized(call, gpu.device)
    images = [a for a in (arguments["x"], arguments.get("x2")) if isinstance(a, Tensor)]
    count = max(1, min(MAX_INPUTS, math.ceil(2 * gpu.l2_bytes / bytes_of(*images))))
    pool = [tuple(images), *(tuple(torch.randn_like(x) for x in images) for _ in range(count - 1))]
    rest = tuple(map(_double, tuple(arguments.values())[len(images) :]))
    exact, _ = exact_and_gmac(lambda *first: OPS[call.op].reference(*first, *rest), [x[:1] for x in images])
    needed = work_of(call.op, arguments)
    rates = {"float16": best["matmul_tflop_s"] / 2 * 1e12}
    floor = Chip("measured", best["copy_gb_s"] * 1e9, rates).floor(needed, "float16")
    turns: dict[str, Callable[[], Any]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, key in wanted.items():
        results.update(running=key)
        try:
            function = builder(name, call, arguments)
            result = function(*images)
            error = relative_error(result[:1], exact)
            if not math.isfinite(error):
                raise RuntimeError("expected finite numbers, got others")
            turns[name] = gpu.capture(lambda function=function: [function(*x) for x in pool][-1])[0]
            floors = {"bytes_us": 1e6 * floor.memory, "products_us": 1e6 * floor.products}
            facts[name] = {part: float(f"{value:.4g}") for part, value in floors.items()}
            facts[name] |= {"weights_mb": round(needed.weight_bytes / 1e6, 3)}
            facts[name] |= {"error": float(f"{error:.3g}"), "inputs": count}
        except Exception as error:  # whatever a kernel does wrong is its row's reason
            results.append({**key, "reason": reason_of(error)})
            check(gpu)
    results.update(running=None)
    timed = interleaved(turns, gpu, seconds, ROUNDS)
    for name, taken in timed.seconds.items():
        times = times_of([s / count for s in taken], call.arguments[0].shape[0])
        shares = {
            "share_of_bandwidth": round(1e3 * floor.memory / times["median_ms"], 3),
            "share_of_floor": round(1e3 * floor.least / times["median_ms"], 3),
        }
        results.append({**wanted[name], "calls": work.calls, **times, **facts[name], **shares, "reason": None})
    for name, reason in timed.reasons.items():
        results.append({**wanted[name], "reason": reason})
    if timed.reasons:
        check(gpu)


def _double(a: Any) -> Any:
    return a.double() if isinstance(a, Tensor) else a
