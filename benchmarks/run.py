"""The benchmark: `python -m benchmarks run models|ops [--device cpu|cuda] [--size S XS] [--out FILE]`.

Every provider of the registry in turn, in interleaved rounds of one process, with its error against float64 and its
share of the least possible time in the same row.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.cpu import measuring
from benchmarks.cpu.measuring import Settings
from benchmarks.cpu.table import machine_text, markdown, slug
from benchmarks.gpu import device as gpu_device
from benchmarks.gpu import measuring as gpu_measuring
from benchmarks.gpu.ops import DTYPE as GPU_OPERATOR_DTYPE
from benchmarks.registry import BATCHES_ON, DTYPES_ON, MODELS, SIZES, batches_of, peers_on, providers_on
from benchmarks.timing import ROUNDS as GPU_ROUNDS
from benchmarks.verify import verify
from mobilevit_fast import info
from mobilevit_fast.cli.console import FAILURE, note, usage_error

RESULTS = Path(__file__).resolve().parent / "results"
DEVICES = tuple(DTYPES_ON)
_DEFAULT = Settings()


def default_out(what: str, dtypes: Sequence[str], device: str, threads: int) -> Path:
    """The file that is meant to be committed: one for a machine, on a CPU its threads, types and version of torch."""
    if device == "cuda":
        machine = machine_text({"gpu": {"name": torch.cuda.get_device_name()}})
    else:
        machine = machine_text({"cpu": {"name": info.collect()["devices"][0]["description"]}, "threads": threads})
    version = torch.__version__.split("+")[0]
    return RESULTS / f"{what}-{'-'.join(dtypes)}-{device}-{slug(machine)}-torch{version}.json"


def _option(text: str, default: object = None, metavar: str | None = None, **arguments: Any) -> Any:
    return typer.Option(
        help=text, metavar=metavar, show_default=False if default is None else str(default), **arguments
    )


def _words(names: Iterable[object]) -> str:
    return " ".join(map(str, names))


Device = Annotated[str, _option(f"One of {', '.join(DEVICES)}.", "cpu")]
WITH_OPERATORS = {
    "cpu": tuple(name for name, model in MODELS.items() if model.preset is not None),
    "cuda": tuple(SIZES),
}
"""Models whose operators are measured."""
What = Annotated[str, typer.Argument(metavar="models|ops", help="Whole models, or their operators.")]
Sizes = Annotated[list[str] | None, _option("Models.", f"{_words(MODELS)}; those with operators", "NAME ...")]
Batches = Annotated[list[int] | None, _option("Images in a call.", "1 8, on a GPU 1 256", "N ...", min=1)]
Types = Annotated[list[str] | None, _option("Types to compute in.", "those of the device", "TYPE ...")]
Peers = Annotated[list[str] | None, _option("What models are beside.", "all; slow ones in a few cases", "NAME ...")]
Threads = Annotated[int | None, _option("Threads of every library, on a CPU.", "torch's", min=1)]
Rounds = Annotated[int | None, _option("Measurements of each provider, on a CPU.", _DEFAULT.rounds, min=1)]
Minutes = Annotated[float, _option("After which rounds end early; compilers end when they end.", _DEFAULT.minutes)]
ImageSize = Annotated[int | None, _option("Pixels in height and width.", "the model's", min=32)]
Out = Annotated[Path | None, _option("JSON file to write.", "in benchmarks/results")]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Run the operators' tests first.")]
Resume = Annotated[bool, typer.Option("--resume", help="Keep the cases that the file has.")]


def run(
    what: What,
    device: Device = "cpu",
    size: Sizes = None,
    batch: Batches = None,
    dtype: Types = None,
    peers: Peers = None,
    threads: Threads = None,
    rounds: Rounds = None,
    minutes: Minutes = _DEFAULT.minutes,
    image_size: ImageSize = None,
    out: Out = None,
    verified: Verify = True,
    resume: Resume = False,
) -> None:
    """Measure whole models against every other way to run them, or every operator against plain PyTorch and its floor.

    Options that name several things take them one after the other: --size S XS.
    """
    _known("run", [what], ("models", "ops"))
    _known("--device", [device], DEVICES)
    on_gpu = device == "cuda"
    known: Sequence[str] = DTYPES_ON[device]
    if on_gpu and what == "ops":
        known = (str(GPU_OPERATOR_DTYPE).removeprefix("torch."),)
    usual = tuple(MODELS) if what == "models" else WITH_OPERATORS[device]
    sizes, batches, dtypes = size or usual, batch or BATCHES_ON[device], dtype or known
    _known("--size", sizes, usual)
    _known("--dtype", dtypes, known)
    _known("--peers", peers or (), peers_on(device))
    for unused in (
        *_unused(what, device, peers, threads, rounds),
        *_without_a_case(device, size or (), batch or (), sizes, dtypes, peers or ()),
    ):
        raise usage_error(unused)
    if on_gpu and not gpu_device.available():
        note("error: --device cuda: expected a GPU that torch can use, found none")
        raise typer.Exit(FAILURE)
    settings = Settings(
        sizes, batches, dtypes, threads or _DEFAULT.threads, rounds or _DEFAULT.rounds, minutes, peers, image_size
    )
    target = (out or default_out(what, dtypes, device, settings.threads)).resolve()
    if verified:
        check(device)
    if on_gpu:
        tasks = gpu_measuring.tasks(what, sizes, dtypes, batches, peers, 60 * minutes)
        gpu = gpu_device.Gpu()
        gpu_measuring.run(what, tasks, image_size, target, gpu, verified=verified, resume=resume)
    else:
        try:
            results = measuring.run(what, settings, target, verified=verified, resume=resume)
        except ValueError as error:
            raise usage_error(f"--resume: {error}") from error
        typer.echo(markdown(results, operators=what == "ops"))
    note(f"written: {target}")


def _unused(
    what: str, device: str, peers: Sequence[str] | None, threads: int | None, rounds: int | None
) -> Iterator[str]:
    """Options that were given and that a run of this kind has no use for."""
    if device == "cuda" and threads is not None:
        yield "--threads: not used on cuda, where the host only launches kernels"
    if device == "cuda" and rounds is not None:
        yield f"--rounds: not used on cuda, where each provider has {GPU_ROUNDS}, or fewer in little time (--minutes)"
    if what == "ops" and peers:
        yield "--peers: not used by ops, which are compared with PyTorch alone"


def _without_a_case(
    device: str,
    named: Sequence[str],
    batches: Sequence[int],
    sizes: Sequence[str],
    dtypes: Sequence[str],
    peers: Sequence[str],
) -> Iterator[str]:
    """Values that were given and that no case of the run would have."""
    for name in named:
        if batches and not batches_of(name, batches):
            yield f"--batch: expected some of {_words(MODELS[name].batches)} for {name}, got {_words(batches)}"
    for peer in peers:
        provider = providers_on(device)[peer]
        if not (any(map(provider.has, sizes)) and set(provider.dtypes) & set(dtypes)):
            yield f"--peers: {peer} runs none of {', '.join(sizes)} in {', '.join(dtypes)}"


def _known(option: str, values: Iterable[str], names: Iterable[str]) -> None:
    unknown = [value for value in values if value not in names]
    if unknown:
        raise usage_error(f"{option}: expected some of {', '.join(names)}, got {', '.join(unknown)}")


def check(device: str) -> None:
    """Test the operators; where a test fails, print the end of its output and measure nothing."""
    note(f"verifying: the operators' tests on {device}")
    failure = verify(device)
    if failure is not None:
        typer.echo(failure, err=True)
        note("error: the operators' tests fail; nothing was measured (--no-verify measures all the same)")
        raise typer.Exit(FAILURE)
