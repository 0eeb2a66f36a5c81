"""A run on a CPU: which cases, in which order, in what time; rows are in the file after each case."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.cases import Case
from benchmarks.cpu import ops as operators
from benchmarks.cpu.floors import floor_ms
from benchmarks.cpu.measure import better, machine_peak, peak_for
from benchmarks.cpu.memory import KINDS, forward_peak
from benchmarks.cpu.providers import Prepared, prepare
from benchmarks.environment import head
from benchmarks.gpu.results import Results
from benchmarks.networks import Networks
from benchmarks.registry import BATCHES_ON, DTYPES, DTYPES_ON, MODELS, SIZES, batches_of, chosen
from benchmarks.timing import HostClock, interleaved, statistics
from mobilevit_fast.cli.console import note
from testing.threads import using_threads

MIN_SECONDS = 30.0
"""Least time for the rounds of a case, also of one whose time went into compilers."""
NO_TIME = "no time was left for it"


@dataclass(frozen=True)
class Settings:
    """Settings of a run; see the command's options. ``peers``: None for those that the registry has for each case."""

    models: Sequence[str] = tuple(MODELS)
    batches: Sequence[int] = BATCHES_ON["cpu"]
    dtypes: Sequence[str] = DTYPES_ON["cpu"]
    threads: int = field(default_factory=torch.get_num_threads)
    rounds: int = 15
    minutes: float = 45.0
    peers: Sequence[str] | None = None
    image_size: int | None = None


class Key(NamedTuple):
    """Key that tells a case from others."""

    model: str
    dtype: str
    batch: int


def cases(settings: Settings, what: str) -> list[Key]:
    """The cases of a run in their order; operators are those of MobileViTs only."""
    models = [name for name in settings.models if what == "models" or MODELS[name].preset is not None]
    return [
        Key(model, dtype, batch)
        for model in models
        for dtype in settings.dtypes
        for batch in batches_of(model, settings.batches)
    ]


def head_of(settings: Settings, what: str, verified: bool) -> dict[str, Any]:
    """Facts that hold for every row of a run."""
    image_size = settings.image_size or {name: MODELS[name].image_size for name in settings.models}
    return head(settings.threads, what=what, rounds=settings.rounds, verified=verified, image_size=image_size)


def begin(results: Results, common: dict[str, Any], resume: bool) -> set[Key]:
    """Make the file, or go on with one that is there; returns the cases that it has.

    Raises:
        ValueError: the file was not measured on the same machine, with the same versions, at the same commit.
    """
    if not (resume and results.path.exists()):
        results.create(common)
        return set()
    have = results.load().get("stamp", {})
    other = [name for name, value in common["stamp"].items() if name != "date" and have.get(name) != value]
    if other:
        raise ValueError(f"{results.path.name} cannot be gone on with: measured with another {', '.join(other)}")
    return {Key(row["model"], row["dtype"], row["batch"]) for row in results.rows}


def run(what: str, settings: Settings, out: Path, *, verified: bool = False, resume: bool = False) -> dict[str, Any]:
    """Measure "models" or "ops", and save the results after each case; returns everything that is in the file then.

    What the machine does at best is measured again with each case, and the best of all is what rows are compared with:
    other load, which the rounds spread over all providers, would otherwise fall on this one number.
    """
    results = Results(out)
    done = begin(results, head_of(settings, what, verified), resume)
    left = [key for key in cases(settings, what) if key not in done]
    end = time.monotonic() + 60 * settings.minutes
    networks: Networks | None = None
    with using_threads(settings.threads):
        for number, key in enumerate(left):
            start = time.monotonic()
            seconds = (end - start) / (len(left) - number)
            if networks is None or (networks.size, networks.dtype) != (key.model, DTYPES[key.dtype]):
                size = settings.image_size or MODELS[key.model].image_size
                networks = Networks(key.model, DTYPES[key.dtype], size)
            case = Case(networks, key.batch, threads=settings.threads)
            measure = _models if what == "models" else _operators
            results.extend(list(measure(case, settings, seconds)))
            _share(results, settings)
            note(f"{key.model}, {key.dtype}, batch {key.batch}: {what} in {time.monotonic() - start:.0f} s")
    return results.load()


def _share(results: Results, settings: Settings) -> None:
    """Compare all rows with the machine at its best so far."""
    content = results.load()
    machine = machine_peak(settings.threads, settings.dtypes)
    before = content["environment"].get("machine")
    machine = content["environment"]["machine"] = machine if before is None else better(before, machine)
    for row in content["rows"]:
        if "gmac_s" in row:
            peak = peak_for(machine, row["dtype"], settings.threads)
            row["share_of_peak"] = float(f"{row['gmac_s'] / peak:.3g}")
            row["share_of_floor"] = float(f"{floor_ms(row, machine, settings.threads) / row['median_ms']:.3g}")
    results.update(**content)


def _models(case: Case, settings: Settings, seconds: float) -> Iterator[dict[str, Any]]:
    yield from measure_models(case, settings, seconds)
    if case.dtype == torch.float32 and case.size in SIZES:  # tensors of another type are as much smaller on both sides
        yield measure_memory(case)


def _operators(case: Case, settings: Settings, seconds: float) -> Iterator[dict[str, Any]]:
    return operators.measure_operators(case, settings.rounds, max(seconds, MIN_SECONDS))


def measure_models(case: Case, settings: Settings, seconds: float) -> list[dict[str, Any]]:
    """A row for every provider of a case; times are per image."""
    end = time.monotonic() + seconds
    providers = list(chosen("cpu", case.size, case.batch, case.dtype_name, settings.peers))
    prepared: dict[str, Prepared] = {}
    for provider in providers:
        late = provider.slow and time.monotonic() > end
        prepared[provider.name] = Prepared(None, None, NO_TIME) if late else prepare(provider, case)
    calls = {name: one.call for name, one in prepared.items() if one.call is not None}
    left = max(end - time.monotonic(), MIN_SECONDS)
    timed = interleaved(calls, HostClock(), left, settings.rounds, most_calls=1)
    rows = []
    for provider in providers:
        _, error, reason, agreement = prepared[provider.name]
        times: dict[str, Any] = {}
        if taken := timed.seconds.get(provider.name):
            times = {**statistics(taken, case.batch), "rounds": len(taken)}
            rate = case.gmac() / times["median_ms"] * 1e3
            times["gmac_s"] = float(f"{rate:.4g}")
        rows.append(
            {
                "kind": "model",
                "model": case.size,
                "batch": case.batch,
                "dtype": case.dtype_name,
                "provider": provider.name,
                "label": provider.label,
                **case.work(),
                **times,
                "error": None if error is None else float(f"{error:.3g}"),
                "top1_agreement": agreement,
                "reason": timed.reasons.get(provider.name, reason),
            }
        )
    return rows


def measure_memory(case: Case) -> dict[str, Any]:
    """A row of what a forward adds to the memory of a process at its peak, in 10⁶ bytes: plain and accelerated."""
    row: dict[str, Any] = {"kind": "memory", "model": case.size, "batch": case.batch, "dtype": case.dtype_name}
    batch, _, _, image_size = case.pool[0].shape
    try:
        peaks = {f"{kind}_mb": forward_peak(kind, case.size, batch, image_size, case.threads) for kind in KINDS}
    except (OSError, RuntimeError) as error:
        return row | {"reason": str(error).strip().splitlines()[-1]}
    return row | {name: round(peak, 1) for name, peak in peaks.items()} | {"reason": None}
