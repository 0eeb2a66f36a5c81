"""A run on a GPU within this process: the cases that are asked for, all providers of each in the same rounds."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import head
from benchmarks.gpu import device, models, ops
from benchmarks.gpu.results import Results
from benchmarks.registry import (
    COMPILED_OPERATORS,
    MODELS,
    OPERATOR_BACKENDS,
    SIZES,
    Model,
    Provider,
    batches_of,
    providers_on,
)
from mobilevit_fast.cli.console import note


def names_for(model: Model, peers: Sequence[str] | None) -> tuple[str, ...]:
    """Providers of a model: this package, and the peers that are named, or else all."""

    def wanted(provider: Provider) -> bool:
        return provider.has(model.name) and (provider.ours or peers is None or provider.name in peers)

    return tuple(name for name, provider in providers_on("cuda").items() if wanted(provider))


def tasks(
    what: str,
    sizes: Sequence[str],
    dtypes: Sequence[str],
    batches: Sequence[int],
    peers: Sequence[str] | None,
    seconds: float,
) -> list[Any]:
    """Tasks of ``benchmarks.gpu.models`` or ``benchmarks.gpu.ops``, each with its share of the time."""
    if what == "ops":
        names = (*OPERATOR_BACKENDS, *COMPILED_OPERATORS)
        found = [(size, batch) for size in sizes if size in SIZES for batch in batches]
        return [ops.Task(size, batch, names, seconds / len(found)) for size, batch in found]
    cases = [
        (size, dtype, own, names_for(MODELS[size], peers))
        for size in sizes
        for dtype in dtypes
        if (own := batches_of(size, batches))
    ]
    return [models.Task(size, dtype, own, names, seconds / len(cases)) for size, dtype, own, names in cases]


def run(
    what: str, chosen: Sequence[Any], image_size: int | None, out: Path, gpu: Any, *, verified: bool, resume: bool
) -> dict[str, Any]:
    """Measure tasks one after the other; rows are in the file at once; returns everything in it."""
    results = Results(out)
    if not (resume and out.exists()):  # both modules measure only the rows that the file does not have yet
        results.create(head(torch.get_num_threads(), device.facts(), what=what, verified=verified))
    module: Any = models if what == "models" else ops
    if not any(row["kind"] == "ceiling" for row in results.rows):
        results.append(ops.ceilings(gpu))
        gpu.release()
    for task in chosen:
        start, size = time.monotonic(), image_size or MODELS[task.size].image_size
        module.measure(task, results, gpu, task.seconds, image_size=size)
        _share(results)
        note(f"{task.name}: {time.monotonic() - start:.0f} s")
    return results.load()


def _share(results: Results) -> None:
    """Compare rows of models with what the device does at best; those of operators are so already."""
    rows = results.rows
    best = next(row for row in rows if row["kind"] == "ceiling")
    for row in rows:
        if row["kind"] == "model" and not row["reason"]:
            moving = row["mb"] / best["copy_gb_s"]
            computing = row["gmac"] / (best["matmul_tflop_s"] / 2)
            row["share_of_floor"] = float(f"{max(moving, computing) * row['batch'] / row['median_ms']:.3g}")
    results.update(rows=rows)
