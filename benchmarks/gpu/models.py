"""Whole models: which are measured in which order, and the measurement within a process.

A provider that is slow to compile, or may bring the process down, has a process of its own; the others of a case share
one, and their rounds are interleaved. Rows are in the file of results as soon as they are known.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import CHECKED_IMAGES, Case, errors
from benchmarks.gpu.providers import ANCHOR, BUILDERS, PROVIDERS
from benchmarks.gpu.results import Results, without_row
from benchmarks.networks import Networks
from benchmarks.registry import DTYPES, YARDSTICK, Provider
from benchmarks.timing import interleaved, reason_of, times_of

MAX_GRAPHS = 8
"""Captured for a pool; where it has more batches, every replay comes with a copy of its images into the graph's."""

LATENCY_CALLS = 50


class Task(NamedTuple):
    """Measurements of one process: providers on the batches of a size of model, and the seconds it may take."""

    size: str
    dtype: str
    batches: tuple[int, ...]
    providers: tuple[str, ...]
    seconds: float

    @property
    def name(self) -> str:
        """For people."""
        which = self.providers[0] if len(self.providers) == 1 else f"{self.providers[0]} and {len(self.providers) - 1}"
        return f"{self.size} {self.dtype} batch {','.join(map(str, self.batches))}: {which}"


_QUICK = tuple(name for name, p in PROVIDERS.items() if not p.slow and not name.startswith("ours-triton"))
_TRITON = ("ours-triton-graph", "ours-triton")
_FIRST = (ANCHOR, "ours-cuda", "transformers-graph", "timm-graph")
_SHORT = (ANCHOR, "transformers-graph", "timm-graph")
_MAIN, _OTHERS = (256, 1), (8, 32, 128, 512)


def tasks() -> list[Task]:
    """Everything, in order of importance: this package beside graphs of compiled models, then more of the same."""
    return [
        Task("S", "float16", _MAIN, _FIRST, 45),
        Task("XS", "float16", _MAIN, (ANCHOR, "timm-graph"), 35),
        Task("XXS", "float16", _MAIN, (ANCHOR, "timm-graph"), 35),
        *(Task(size, "float16", _MAIN, ("timm-compile-graph",), 60) for size in ("S", "XS", "XXS")),
        Task("S", "float16", _MAIN, ("resnet50-compile-graph",), 60),
        Task("S", "float16", _OTHERS, _SHORT, 60),
        Task("S", "bfloat16", _MAIN, _SHORT, 50),
        Task("XS", "float16", _OTHERS, (ANCHOR,), 40),
        Task("XXS", "float16", _OTHERS, (ANCHOR,), 40),
        Task("S", "float16", (8, 32), ("timm-compile-graph",), 120),
        Task("S", "float16", (256,), ("timm-max-autotune",), 150),
        Task("S", "float16", (1,), ("timm-max-autotune",), 150),
        Task("S", "float16", _MAIN, tuple(name for name in _QUICK if name not in _FIRST), 80),
        Task("S", "float16", _MAIN, _TRITON, 80),
        Task("S", "float16", (256,), ("resnet50-max-autotune",), 100),
        Task("S", "float16", (256,), ("transformers-max-autotune",), 150),
        Task("S", "float16", _MAIN, ("timm-compile",), 100),
        Task("S", "float16", _MAIN, ("transformers-compile",), 100),
        Task("S", "float16", _MAIN, ("transformers-reduce-overhead",), 100),
        Task("XS", "float16", (256,), ("timm-max-autotune",), 150),
        Task("XXS", "float16", (256,), ("timm-max-autotune",), 150),
        Task("S", "float16", _MAIN, ("tensorrt",), 150),
        Task("XS", "float16", _MAIN, _TRITON, 80),
        Task("XXS", "float16", _MAIN, _TRITON, 80),
    ]


def compiled_ahead() -> list[Task]:
    """Those whose compilation fills the compiler's cache while tests run: the first of each network."""
    return [task for task in tasks() if task.providers[0].endswith("-compile-graph") and task.batches == _MAIN]


def key_of(task: Task, batch: int, provider: str) -> dict[str, Any]:
    """Fields that tell a row from all others."""
    chosen = PROVIDERS[provider]
    return {
        "kind": "model",
        "model": YARDSTICK if chosen.network(task.size) == "resnet50" else task.size,
        "dtype": task.dtype,
        "batch": batch,
        "provider": provider,
        "label": chosen.label,
    }


def missing(task: Task, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Keys of the rows that a task should have given and has not."""
    keys = (key_of(task, *which) for which in itertools.product(task.batches, task.providers))
    return without_row(keys, rows)


class _Prepared(NamedTuple):
    turn: Callable[[], Any]
    facts: dict[str, Any]


def compile_ahead(task: Task, gpu: Any, *, image_size: int = 256) -> None:
    """Call a task's providers once, for what the compiler keeps on disk: whoever measures them later waits less."""
    networks = Networks(task.size, DTYPES[task.dtype], image_size)
    for batch in task.batches:
        case = Case(networks, batch, gpu.device, cache_bytes=gpu.l2_bytes)
        for name in task.providers:
            provider = PROVIDERS[name]
            with torch.inference_mode():
                BUILDERS[provider.library](case, provider)(case.images(provider.channels_last)[0])
        gpu.release()


class DeviceLost(RuntimeError):
    """Nothing more can be computed in this process."""


def prepare(provider: Provider, case: Case, gpu: Any) -> _Prepared:
    """Build a provider's call, which takes the batches of the pool in turn, check its logits, and see its memory."""
    images, exact = case.images(provider.channels_last), case.exact(provider.network(case.size))
    before = gpu.reset_peak()
    forward = BUILDERS[provider.library](case, provider)
    gpu.synchronize()
    start = time.perf_counter()
    with torch.inference_mode():
        forward(images[0])
    gpu.synchronize()
    facts: dict[str, Any] = {"first_call_s": round(time.perf_counter() - start, 2), "inputs": f"{len(images)} in turn"}
    outputs: list[Callable[[], Tensor]] = []
    if not provider.graph:
        outputs = [functools.partial(forward, x) for x in images]
        turns: list[Callable[[], Any]] = list(outputs)
    elif len(images) <= MAX_GRAPHS:
        turns, pool = [], None
        for x in images:
            replay, logits, pool = gpu.capture(functools.partial(forward, x), pool)
            turns.append(replay)
            outputs.append(_after(replay, logits))
        facts["inputs"] += ", a graph each"
    else:
        static = images[0].clone(memory_format=torch.preserve_format)
        replay, logits, _ = gpu.capture(lambda: forward(static))
        turns = [_copying(static, x, replay) for x in images]
        outputs = [_after(turn, logits) for turn in turns]
        facts["inputs"] += ", copied to the graph's"
    batches = -(-min(CHECKED_IMAGES, case.batch * len(images)) // case.batch)
    with torch.inference_mode():
        found = torch.cat([output().clone() for output in outputs[:batches]])[:CHECKED_IMAGES]
    facts |= errors(found, exact) | case.work(provider.network(case.size))
    facts["peak_mb"] = round((gpu.peak() - before) / 1e6, 1)
    cycle = itertools.cycle(turns)

    def turn() -> None:
        with torch.inference_mode():
            next(cycle)()

    return _Prepared(turn, facts)


def _after(replay: Callable[[], Any], logits: Tensor) -> Callable[[], Tensor]:
    def output() -> Tensor:
        replay()
        return logits

    return output


def _copying(static: Tensor, x: Tensor, replay: Callable[[], Any]) -> Callable[[], None]:
    def turn() -> None:
        static.copy_(x)
        replay()

    return turn


def latency(call: Callable[[], Any], gpu: Any) -> float:
    """Median milliseconds by the host's clock from a call to its result, for whoever waits for each."""
    seconds = []
    for _ in range(LATENCY_CALLS):
        gpu.synchronize()
        start = time.perf_counter()
        call()
        gpu.synchronize()
        seconds.append(time.perf_counter() - start)
    return float(f"{1e3 * sorted(seconds)[LATENCY_CALLS // 2]:.4g}")


def measure(task: Task, results: Results, gpu: Any, seconds: float, *, image_size: int = 256) -> None:
    """Add the rows of a task that the results do not have yet.

    Raises:
        DeviceLost: an error after which the device does not answer; rows of others are missing then.
    """
    end = time.monotonic() + seconds
    networks = Networks(task.size, DTYPES[task.dtype], image_size)
    for done, batch in enumerate(task.batches):
        wanted = {key["provider"]: key for key in missing(task, results.rows) if key["batch"] == batch}
        if wanted:
            left = (end - time.monotonic()) / (len(task.batches) - done)
            _measure_case(wanted, Case(networks, batch, gpu.device, cache_bytes=gpu.l2_bytes), results, gpu, left)
            gpu.release()


def _measure_case(wanted: dict[str, dict[str, Any]], case: Case, results: Results, gpu: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    prepared: dict[str, _Prepared] = {}
    beside = [ANCHOR] if ANCHOR not in wanted and PROVIDERS[ANCHOR].has(case.size) else []
    for name in [*wanted, *beside]:
        results.update(running=wanted.get(name))
        try:
            if time.monotonic() > end:
                raise TimeoutError("no time was left for it")
            prepared[name] = prepare(PROVIDERS[name], case, gpu)
        except Exception as error:  # whatever a provider does wrong is its row's reason
            if name in wanted:
                results.append({**wanted[name], "reason": reason_of(error)})
            check(gpu)
    results.update(running=None)
    if not wanted.keys() & prepared.keys():
        return
    calls = {name: one.turn for name, one in prepared.items()}
    timed = interleaved(calls, gpu, max(1.0, end - time.monotonic()))
    for name, key in wanted.items():
        if name in timed.reasons:
            results.append({**key, "reason": timed.reasons[name]})
        elif name in prepared:
            row = {**key, **times_of(timed.seconds[name], case.batch), **prepared[name].facts, "reason": None}
            if beside and ANCHOR in timed.seconds:
                row["ours_beside_ms"] = times_of(timed.seconds[ANCHOR], case.batch)["median_ms"]
            if case.batch == 1:
                row["latency_ms"] = latency(prepared[name].turn, gpu)
            results.append(row)
    if timed.reasons:
        check(gpu)


def check(gpu: Any) -> None:
    """See whether the device still answers.

    Raises:
        DeviceLost: it does not.
    """
    try:
        gpu.synchronize()
    except Exception as error:
        raise DeviceLost(reason_of(error)) from error
