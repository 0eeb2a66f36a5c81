"""Files to answers: the engine, its stages alone, and the loops that people write, on the same files."""

import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from benchmarks import environment, freshness
from benchmarks.cpu.table import commit_text, grid, machine_text
from benchmarks.loops import LABELS, LOOPS, Classifier, Way, interleaved, loops
from mobilevit_fast.checkpoints import build_model, read_checkpoint
from mobilevit_fast.cli.console import note, percent, usage_error
from mobilevit_fast.engine import PREPROCESSING_MODES, Engine
from mobilevit_fast.engine.benchmark import agreement, measure
from mobilevit_fast.images import MobileViTImageProcessor
from testing.peers import import_transformers

BEGIN, END = "<!-- engine-table:begin -->", "<!-- engine-table:end -->"
CASES = {
    "arrays": "uint8 arrays of 256 px",
    "jpeg256": "JPEG of 256 px",
    "photos": "the photos as they are",
    "megapixels": "JPEG of 1.3 to 3.9 megapixels",
}
"""Cases that are answered; all but `photos` is made from them."""
_QUALITY = 90
_SIDES = (1000, 1400, 1700)
_BATCH = 8


@dataclass
class Workload:
    """Things to be answered: files, or arrays in memory."""

    name: str
    sources: list[Any]


def engine(
    photos: Annotated[Path, typer.Argument(help="Folder of photos; the cases are made from them.")],
    model: Annotated[Path, typer.Option(help="Folder of a classification model with its image processor.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    case: Annotated[list[str] | None, typer.Option(help=f"Among {', '.join(CASES)}; by default all.")] = None,
    peers: Annotated[list[str] | None, typer.Option(help=f"Among {', '.join(LOOPS)}; by default all.")] = None,
    limit: Annotated[int, typer.Option(help="Photos at most.", min=1)] = 210,
    rounds: Annotated[int, typer.Option(help="Measurements of each.", min=1)] = 5,
) -> None:
    """Measure the engine from files to answers, its stages alone, and other ways to do the same."""
    for option, values, known in (("--case", case, CASES), ("--peers", peers, LOOPS)):
        for value in values or ():
            if value not in known:
                raise usage_error(f"{option}: expected some of {', '.join(known)}, got {value}")
    files = photos_in(photos)[:limit]
    if not files:
        raise usage_error(f"expected a folder with photos, got {photos}")
    results: dict[str, Any] = environment.head(torch.get_num_threads(), photos=len(files), rounds=rounds)
    results["rows"] = []
    ours = [_ours(model, mode) for mode in PREPROCESSING_MODES]
    others = loops(_theirs(model), peers or LOOPS)
    with tempfile.TemporaryDirectory() as folder:
        for one in cases_of(files, [*(case or CASES)], Path(folder)):
            row = _measured(one, ours, others if one.name != "arrays" else {}, rounds)
            note(f"{one.name}: {json.dumps(row['images_per_second'])}")
            results["rows"].append(row)
            out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    typer.echo(markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """The table of a file of results, and what they were measured on."""
    facts, stamp = results["environment"], results["stamp"]
    conditions = (
        f"{machine_text(facts)}; torch {stamp['torch']}, transformers {stamp['transformers']}; {stamp['date']}, commit "
        f"{commit_text(facts)}. MobileViT-XXS, images of 256 px, float32; images a second, medians of "
        f"{facts['rounds']} interleaved rounds over {facts['photos']} photos; in "
        f"brackets how many times as fast exact preprocessing is.{freshness.remark('cpu', results)}"
    )
    names = [*dict.fromkeys(name for row in results["rows"] for name in row["images_per_second"])]
    lines = []
    for row in results["rows"]:
        rates, stages = row["images_per_second"], row["stages"]
        ours = rates[names[0]]
        cells = [_rate_text(rates.get(name), ours if name in LABELS else None) for name in names]
        share = f"{100 * stages['together_by_slowest']:.0f} % of {stages['bound_by']}"
        cells += [share, f"{stages['core_seconds_by_those_alone']:.2f}×", percent(row["fast_agrees_with_exact"])]
        lines.append([CASES[row["case"]], *cells])
    header = ["", *(LABELS.get(name, name) for name in names), "together / slowest alone", "core time / that of stages"]
    return f"{conditions}\n\n{grid([*header, 'fast as exact'], lines)}"


def _rate_text(rate: float | None, ours: float | None) -> str:
    if rate is None:
        return "–"
    return f"{rate:.1f}" if ours is None else f"{rate:.1f} ({ours / rate:.1f}×)"


def _measured(case: Workload, ours: Sequence[Engine], others: dict[str, Way], rounds: int) -> dict:
    ways: dict[str, Way] = {f"engine, {one.preprocessing.mode}": partial(answered, one) for one in ours}
    ways |= others
    # The image processor of transformers does not normalise, whatever it is told: its answers are others.
    times = interleaved(ways, case.sources, rounds, like=dict.fromkeys(others, next(iter(others), "")))
    count = len(case.sources)
    return {
        "kind": "engine",
        "case": case.name,
        "images": count,
        "images_per_second": {name: round(count / statistics.median(taken), 2) for name, taken in times.items()},
        "seconds": {name: [round(one, 4) for one in taken] for name, taken in times.items()},
        "stages": measure(ours[0], case.sources).to_dict(),
        "stages_fast": measure(ours[1], case.sources).to_dict(),
        "fast_agrees_with_exact": agreement(ours[0], ours[1], case.sources).share,
    }


def answered(engine: Engine, sources: list[Any]) -> list[int]:
    """Classes of sources, by a stream; -1 of those that failed."""
    return [prediction.indices[0] if prediction.indices else -1 for prediction in engine.stream(sources)]


def photos_in(folder: Path) -> list[Path]:
    """The files of photos in a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def cases_of(files: Sequence[Path], names: Sequence[str], folder: Path, image_size: int = 256) -> Iterator[Workload]:
    """Cases by their names, made from photos; files of their own are written to a folder."""
    for name in names:
        if name == "photos":
            yield Workload(name, [*files])
            continue
        sources: list[Any] = []
        for number, file in enumerate(files):
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
            side = _SIDES[number % len(_SIDES)] if name == "megapixels" else image_size
            picture = picture.resize((side if name != "megapixels" else side * 4 // 3, side), Image.Resampling.LANCZOS)
            if name == "arrays":
                sources.append(np.asarray(picture))
                continue
            encoded = BytesIO()
            picture.save(encoded, format="JPEG", quality=_QUALITY)
            sources.append(folder / f"{name}-{number:05}.jpg")
            sources[-1].write_bytes(encoded.getvalue())
        yield Workload(name, sources)


def _ours(model: Path, mode: str) -> Engine:
    module = build_model(read_checkpoint(model), "classification").eval()
    return Engine(module, MobileViTImageProcessor.from_pretrained(model), preprocessing=mode, top_k=1)


def _theirs(model: Path) -> Classifier:
    transformers = import_transformers()
    module = transformers.MobileViTForImageClassification.from_pretrained(model).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(model)
    return Classifier(module, processor, _BATCH, len(os.sched_getaffinity(0)))
