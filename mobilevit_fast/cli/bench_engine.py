"""`mobilevit-fast bench-engine`: how fast each stage of an engine is, and all of them together."""

import io
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mobilevit_fast.cli.console import note, percent, say, say_json, stdout, usage_error
from mobilevit_fast.cli.loading import engine_of, load, parse_device, parse_dtype
from mobilevit_fast.cli.options import Accelerate, Device, Dtype, Json, Model, Preprocessing, Processor
from mobilevit_fast.engine import PREPROCESSING_MODES, Engine
from mobilevit_fast.engine.benchmark import MAX_IMAGES, Agreement, EngineRates, agreement, exactness, first_of, measure
from mobilevit_fast.engine.decoding import has_simplejpeg
from mobilevit_fast.engine.loading import DIGITS
from mobilevit_fast.engine.optional import needed
from mobilevit_fast.files import user_path, write_atomically


def bench_engine_command(
    sources: Annotated[
        list[str], typer.Argument(help=f"Images to measure with, as for `predict`; {MAX_IMAGES} at most.")
    ],
    model: Model = DIGITS,
    batch_size: Annotated[int | None, typer.Option(help="Images in one call of the model.")] = None,
    decode_threads: Annotated[int | None, typer.Option(help="Threads that decode; one for each core.")] = None,
    device: Device = None,
    dtype: Dtype = "float32",
    accelerate: Accelerate = True,
    preprocessing: Preprocessing = PREPROCESSING_MODES[0],
    processor: Processor = None,
    limit: Annotated[int | None, typer.Option(help="Sources at most.")] = None,
    seconds: Annotated[float, typer.Option(help="For each stage, at least.")] = 2.0,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: the stages as bars, such as out.svg.")] = None,
    json_output: Json = False,
) -> None:
    """Measure reading, decoding, resizing and the model alone, and all of them together."""
    if preprocessing not in PREPROCESSING_MODES:
        raise usage_error(f"--preprocessing: expected {', '.join(PREPROCESSING_MODES)}, got {preprocessing!r}")
    if plot is not None and plot.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise usage_error(f"--plot: expected the name of a picture such as out.svg, got {plot}")
    if plot is not None:
        needed("matplotlib", "--plot")  # before there is anything to lose
    if not has_simplejpeg():
        note("JPEG is decoded by Pillow; it is faster with simplejpeg, which is not installed (pip install simplejpeg)")
    compute_dtype, compute_device = parse_dtype(dtype), parse_device(device)
    loaded = load(model, None, processor=processor, device=compute_device, dtype=compute_dtype, accelerated=False)

    def engine(mode: str) -> Engine:
        return engine_of(loaded, batch_size, decode_threads, preprocessing=mode, acceleration=accelerate)

    exact, other = (engine(mode) for mode in PREPROCESSING_MODES)
    images = first_of(sources, limit)
    rates = measure(exact if preprocessing == PREPROCESSING_MODES[0] else other, images, seconds=seconds)
    own_pixels = exactness(exact, loaded.processor, images)
    agreed = agreement(exact, other, images) if "label" in exact.model.wanted.outputs else None
    if rates.failed:
        note(f"{rates.failed} images cannot be read and were left out")
    if plot is not None:
        _plot(rates, user_path(plot))
    if json_output:
        shares = {
            "exact_has_the_processors_pixels": own_pixels.share,
            "fast_agrees_with_exact": None if agreed is None else agreed.share,
        }
        say_json({"preprocessing": preprocessing, **rates.to_dict(), **shares})
        return
    table = Table("stage", "images/s", "core ms an image")
    for name, rate in rates.alone.items():
        table.add_row(name, f"{rate.images_per_second:.1f}", f"{1000 * rate.core_seconds:.2f}")
    together = rates.together
    table.add_section()
    table.add_row("together", f"{together.images_per_second:.1f}", f"{1000 * together.core_seconds:.2f}")
    stdout().print(table)
    say(
        f"together / slowest alone ({rates.bound_by}): {rates.of_slowest:.2f}; "
        f"time on the cores, together / sum of those alone: {rates.overhead:.2f}"
    )
    say(f"the image processor's own pixels, to the bit, by exact preprocessing: {_told(own_pixels)}")
    if agreed is not None:
        say(f"the same class by exact and fast preprocessing: {_told(agreed)}")


def _told(agreed: Agreement) -> str:
    return "no images to compare" if agreed.share is None else f"{percent(agreed.share)} of {agreed.images} images"


def _plot(rates: EngineRates, path: Path) -> None:
    """Bars of the rates, the slowest stage marked."""
    names = [*rates.alone, "together"]
    values = [*(rate.images_per_second for rate in rates.alone.values()), rates.together.images_per_second]
    colours = ["C3" if name == rates.bound_by else "C0" for name in rates.alone] + ["C2"]
    figure = needed("matplotlib.figure", "--plot").Figure(figsize=(7, 0.6 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names[::-1], values[::-1], color=colours[::-1])
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xscale("log")
    axes.set_xlabel(f"images a second, {rates.cores} threads; the bound in red")
    axes.margins(x=0.15)
    file = io.BytesIO()
    figure.savefig(file, format=path.suffix[1:].lower())
    write_atomically(path.absolute(), file.getvalue())
