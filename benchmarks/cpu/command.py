"""The command: which cases, in which order, and where the results go."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.cpu import ops as operators
from benchmarks.cpu.environment import environment
from benchmarks.cpu.measure import better, interleaved, machine_peak, peak_for, statistics, using_threads
from benchmarks.cpu.memory import KINDS, forward_peak
from benchmarks.cpu.models import DTYPES, SIZES, Case, build_model, make_case
from benchmarks.cpu.providers import OURS, PROVIDERS, Provider, prepare
from benchmarks.cpu.table import markdown
from mobilevit_fast.cli.console import note, usage_error

RESULTS = Path(__file__).resolve().parent.parent / "results"


@dataclass(frozen=True)
class Settings:
    """What to measure; see the command's options."""

    models: Sequence[str] = tuple(SIZES)
    batches: Sequence[int] = (1, 8)
    dtypes: Sequence[str] = tuple(DTYPES)
    threads: int = field(default_factory=torch.get_num_threads)
    rounds: int = 30
    ops: bool = True
    peers: Sequence[str] = tuple(name for name in PROVIDERS if name not in OURS)
    image_size: int = 256

    def providers(self, dtype: str) -> list[Provider]:
        """Who is measured in cases of a type."""
        chosen = (PROVIDERS[name] for name in PROVIDERS if name in OURS or name in self.peers)
        return [provider for provider in chosen if dtype in provider.dtypes]


def run(settings: Settings, out: Path | None = None) -> dict[str, Any]:
    """Measure, and write the results to a file after each case, so that a run that is cut short leaves something.

    What the machine does at best is measured again with each case, and the best of all is what rows are compared with:
    other load, which the rounds spread over all providers, would otherwise fall on this one number.
    """
    results: dict[str, Any] = {"environment": environment(settings.threads), "rows": []}
    results["environment"] |= {"rounds": settings.rounds, "image_size": settings.image_size}
    with using_threads(settings.threads):
        machine = machine_peak(settings.threads, settings.dtypes)
        for size in settings.models:
            model = build_model(size, settings.image_size)
            for dtype in settings.dtypes:
                for batch in settings.batches:
                    case = make_case(model, size, batch, dtype, settings.threads, settings.image_size)
                    results["rows"] += _rows(case, settings)
                    machine = better(machine, machine_peak(settings.threads, settings.dtypes))
                    results["environment"]["machine"] = machine
                    for row in results["rows"]:
                        if "gmac_s" in row:
                            share = row["gmac_s"] / peak_for(machine, row["dtype"], settings.threads)
                            row["share_of_peak"] = float(f"{share:.3g}")
                    if out is not None:
                        _write(results, out)
    return results


def _rows(case: Case, settings: Settings) -> Iterator[dict[str, Any]]:
    start = time.perf_counter()
    yield from measure_models(case, settings)
    if case.dtype == torch.float32:  # tensors of another type are as much smaller on both sides
        yield measure_memory(case)
    note(f"{case.size}, batch {case.batch}, {case.dtype_name}: models in {time.perf_counter() - start:.0f} s")
    if settings.ops:
        start = time.perf_counter()
        yield from operators.measure_operators(case, settings.rounds)
        note(f"{case.size}, batch {case.batch}, {case.dtype_name}: operators in {time.perf_counter() - start:.0f} s")


def measure_models(case: Case, settings: Settings) -> list[dict[str, Any]]:
    """A row for every provider of a case; times are per image."""
    providers = settings.providers(case.dtype_name)
    prepared = {provider.name: prepare(provider, case) for provider in providers}
    calls = {name: one.call for name, one in prepared.items() if one.call is not None}
    seconds = interleaved(calls, settings.rounds)
    rows = []
    for provider in providers:
        _, error, reason = prepared[provider.name]
        times: dict[str, Any] = {}
        if provider.name in seconds:
            times = statistics(seconds[provider.name], case.batch)
            rate = case.gmac / times["median_ms"] * 1e3
            times["gmac_s"] = float(f"{rate:.4g}")
        rows.append(
            {
                "kind": "model",
                "model": case.size,
                "batch": case.batch,
                "dtype": case.dtype_name,
                "provider": provider.name,
                "label": provider.label,
                "gmac": float(f"{case.gmac:.4g}"),
                **times,
                "error": None if error is None else float(f"{error:.3g}"),
                "reason": reason,
            }
        )
    return rows


def measure_memory(case: Case) -> dict[str, Any]:
    """A row of what a forward adds to the memory of a process at its peak, in 10⁶ bytes: plain and accelerated."""
    row: dict[str, Any] = {"kind": "memory", "model": case.size, "batch": case.batch, "dtype": case.dtype_name}
    batch, _, _, image_size = case.images.shape
    try:
        peaks = {f"{kind}_mb": forward_peak(kind, case.size, batch, image_size, case.threads) for kind in KINDS}
    except (OSError, RuntimeError) as error:
        return row | {"reason": str(error).strip().splitlines()[-1]}
    return row | {name: round(peak, 1) for name, peak in peaks.items()} | {"reason": None}


def _write(results: dict[str, Any], out: Path) -> None:
    """Replace the file as a whole, one row on a line."""
    rows = ",\n  ".join(json.dumps(row) for row in results["rows"])
    text = f'{{\n"environment": {json.dumps(results["environment"], indent=1)},\n"rows": [\n  {rows}\n]\n}}\n'
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(out)


def default_out() -> Path:
    """The file that is meant to be committed."""
    return RESULTS / f"cpu-models-torch{torch.__version__.split('+')[0]}.json"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_DEFAULT = Settings()


def _several(metavar: str, text: str, default: Sequence[Any], **arguments: Any) -> Any:
    return typer.Option(metavar=metavar, help=text, show_default=" ".join(map(str, default)), **arguments)


@app.command()
def cpu(
    models: Annotated[list[str] | None, _several("SIZE ...", "Sizes of model.", _DEFAULT.models)] = None,
    batches: Annotated[list[int] | None, _several("N ...", "Images in a call.", _DEFAULT.batches, min=1)] = None,
    dtypes: Annotated[list[str] | None, _several("TYPE ...", "Types to compute in.", _DEFAULT.dtypes)] = None,
    threads: Annotated[int, typer.Option(help="Threads of every library.", min=1)] = _DEFAULT.threads,
    rounds: Annotated[int, typer.Option(help="Measurements of each provider.", min=1)] = _DEFAULT.rounds,
    ops: Annotated[bool, typer.Option("--ops/--no-ops", help="Also every operator by itself.")] = _DEFAULT.ops,
    peers: Annotated[list[str] | None, _several("NAME ...", "What to compare with.", _DEFAULT.peers)] = None,
    image_size: Annotated[int, typer.Option(help="Pixels in height and width.", min=32)] = _DEFAULT.image_size,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.", show_default="in benchmarks/results")] = None,
) -> None:
    """Measure MobileViT on this CPU: every provider in turn, in one process, with its error in the same row.

    Options that name several things take them one after the other: --models S XS.
    """
    settings = Settings(
        models=models or _DEFAULT.models,
        batches=batches or _DEFAULT.batches,
        dtypes=dtypes or _DEFAULT.dtypes,
        threads=threads,
        rounds=rounds,
        ops=ops,
        peers=peers or _DEFAULT.peers,
        image_size=image_size,
    )
    for option, values, known in (
        ("--models", settings.models, SIZES),
        ("--dtypes", settings.dtypes, DTYPES),
        ("--peers", settings.peers, _DEFAULT.peers),
    ):
        unknown = [value for value in values if value not in known]
        if unknown:
            raise usage_error(f"{option}: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    target = out or default_out()
    results = run(settings, target)
    typer.echo(markdown(results, operators=ops))
    note(f"written: {target}")


_SEVERAL = ("--models", "--batches", "--dtypes", "--peers")


def repeat_options(arguments: Sequence[str]) -> list[str]:
    """`--models S XS` as `--models S --models XS`, the only form that the option parser has."""
    repeated: list[str] = []
    option = None
    for argument in arguments:
        if argument.startswith("--"):
            option = argument if argument in _SEVERAL else None
        elif option is not None and repeated[-1] != option:
            repeated.append(option)
        repeated.append(argument)
    return repeated


def main() -> None:
    """Run the command line of this process."""
    app(args=repeat_options(sys.argv[1:]), prog_name="python -m benchmarks.cpu")
