"""The engine on a GPU, from files to answers: stages alone, all together, the CUDA graph, and loops of others."""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.engine import answered, cases_of, photos_in
from benchmarks.gpu.models import check
from benchmarks.gpu.results import Results, without_row
from benchmarks.loops import Classifier, Way, interleaved, loops
from benchmarks.networks import Networks, copied
from benchmarks.registry import DTYPES
from benchmarks.timing import reason_of
from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.benchmark import measure as measure_stages
from mobilevit_fast.images import MobileViTImageProcessor
from testing.peers import import_transformers

CASES = {
    "batch": "one uint8 array of many images",
    "arrays": "uint8 arrays of 256 px",
    "jpeg256": "JPEG of 256 px",
    "photos": "photos",
}
"""Cases that are answered, in order of importance."""
LOOPS = "loops"
"""Kind of the rows of the engine beside other loops, in turns."""
IMAGES = 512
MADE = 128
"""Photos that are made where none are given."""

_SIDES = ((600, 800), (800, 600), (480, 640), (1080, 1440))
_REPEATS = 50
_MEASUREMENTS = 7
"""Measurements of a case: five stages, all together, the graph."""
_LONGEST = 2.0
_ROUNDS = 5
_BATCH_OF_LOOPS = 32
_IMAGES_OF_LOOPS = 4096
"""So many that starting their processes counts for little, in so small batches that all workers have some."""


class Task(NamedTuple):
    """Measurements of one process: cases of a size of model, and the seconds it may take; or beside other loops."""

    size: str
    preprocessing: str
    cases: tuple[str, ...]
    seconds: float
    dtype: str = "float16"
    kind: str = "engine"

    @property
    def name(self) -> str:
        """For people."""
        beside = " beside other loops" if self.kind == LOOPS else ""
        return f"engine{beside} with {self.size}, {self.dtype}, {self.preprocessing}: {', '.join(self.cases)}"


def tasks() -> list[Task]:
    """Everything, in order of importance."""
    return [
        Task("S", "exact", tuple(CASES), 50),
        Task("S", "exact", ("jpeg256", "photos"), 100, kind=LOOPS),
        Task("S", "fast", ("photos",), 25),
    ]


def missing(task: Task, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Keys of the rows that a task should have given and has not."""
    same = {"kind": task.kind, "model": task.size, "dtype": task.dtype, "preprocessing": task.preprocessing}
    return without_row(({**same, "case": case} for case in task.cases), rows)


def engine_of(task: Task, gpu: Any, image_size: int) -> Engine:
    """An engine whose model has random weights. Of images of 256 px its image processor keeps every pixel."""
    model = Networks(task.size, DTYPES[task.dtype], image_size).get("transformers").to(gpu.device, DTYPES[task.dtype])
    processor = MobileViTImageProcessor(size={"shortest_edge": image_size}, crop_size=image_size)
    return Engine(model, processor, preprocessing=task.preprocessing, top_k=1)


def _classifier_of(task: Task, gpu: Any, image_size: int) -> Classifier:
    """The same model as it is, with the same treatment by transformers, and a process for each core to prepare."""
    network = Networks(task.size, DTYPES[task.dtype], image_size).get("transformers")
    crop = {"height": image_size, "width": image_size}
    processor = import_transformers().MobileViTImageProcessor(size={"shortest_edge": image_size}, crop_size=crop)
    workers = len(os.sched_getaffinity(0))
    module = copied(network, dtype=DTYPES[task.dtype], device=gpu.device).eval()
    return Classifier(module, processor, _BATCH_OF_LOOPS, workers, pipeline_workers=workers)


def measure(
    task: Task, results: Results, gpu: Any, seconds: float, *, photos: Path | None = None, image_size: int = 256
) -> None:
    """Add the rows of a task that the results do not have yet.

    Raises:
        DeviceLost: an error after which the device does not answer; rows of others are missing then.
    """
    end = time.monotonic() + seconds
    engine = engine_of(task, gpu, image_size)
    others = loops(_classifier_of(task, gpu, image_size)) if task.kind == LOOPS else {}
    with tempfile.TemporaryDirectory() as folder:
        files = made_photos(Path(folder)) if photos is None else photos_in(photos)[:IMAGES]
        wanted = list(missing(task, results.rows))
        for number, key in enumerate(wanted):
            results.update(running=key)
            share = (end - time.monotonic()) / (len(wanted) - number)
            try:
                if share <= 0:
                    raise TimeoutError("no time was left for it")
                case = _Case(key["case"], files, Path(folder), image_size)
                if others:
                    row = _beside(engine, others, case.files(_IMAGES_OF_LOOPS), share)
                else:
                    row = _measured(engine, gpu, case, min(_LONGEST, share / _MEASUREMENTS))
                results.append({**key, **row, "photos": "made" if photos is None else "given", "reason": None})
            except Exception as error:  # whatever goes wrong is the row's reason
                results.append({**key, "reason": reason_of(error)})
                check(gpu)
        results.update(running=None)


def made_photos(folder: Path) -> list[Path]:
    """Photos of smooth noise, as JPEG of a few sizes: what there is to decode where no camera was."""
    random = np.random.default_rng(0)
    files = []
    for number in range(MADE):
        height, width = _SIDES[number % len(_SIDES)]
        small = Image.fromarray(random.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
        encoded = BytesIO()
        small.resize((width, height), Image.Resampling.BICUBIC).save(encoded, format="JPEG", quality=90)
        files.append(folder / f"{number:05}.jpg")
        files[-1].write_bytes(encoded.getvalue())
    return files


class _Case(NamedTuple):
    """A case, and the photos that it is made from."""

    name: str
    photos: Sequence[Path]
    folder: Path
    image_size: int

    def sources(self) -> list[Any]:
        """One for each photo."""
        name = "arrays" if self.name == "batch" else self.name
        (found,) = cases_of(self.photos, [name], self.folder, self.image_size)
        return found.sources

    def repeated(self, count: int) -> list[Any]:
        """As many, the first again behind the last."""
        found = self.sources()
        return [found[i % len(found)] for i in range(count)]

    def files(self, count: int) -> list[Path]:
        """As many files: copies, since a source is answered once."""
        found: list[Path] = self.sources()
        copies = [self.folder / f"copy-{i:05}-{found[i % len(found)].name}" for i in range(len(found), count)]
        for i, copy in enumerate(copies):
            shutil.copyfile(found[i % len(found)], copy)
        return [*found, *copies][:count]


def _beside(engine: Engine, others: Mapping[str, Way], sources: list[Path], seconds: float) -> dict[str, Any]:
    """Images a second of the engine and of other loops: medians of turns over the same files."""
    ways: dict[str, Way] = {f"engine, {engine.preprocessing.mode}": partial(answered, engine), **others}
    times = interleaved(ways, sources, _ROUNDS, seconds / 2)  # the first turn compiles
    rates = {name: round(len(sources) / statistics.median(taken), 1) for name, taken in times.items()}
    return {"images": len(sources), "threads": engine.decode_threads, "images_per_second": rates, "seconds": times}


def _measured(engine: Engine, gpu: Any, case: _Case, seconds: float) -> dict[str, Any]:
    """Rates of a case, in images a second."""
    largest = engine.batch_sizes[-1]
    replay = engine.compute.replay(largest)  # type: ignore[union-attr]
    with torch.inference_mode():
        gpu.elapsed(replay, 3)
        graph = largest * _REPEATS / gpu.elapsed(replay, _REPEATS)
    if case.name == "batch":
        together = _calls(engine, np.stack(case.repeated(8 * largest)), seconds)
        return _row(graph, together) | {"images": 8 * largest, "threads": engine.decode_threads}
    rates = measure_stages(engine, case.repeated(IMAGES) if case.name == "arrays" else case.sources(), seconds=seconds)
    return _row(graph, rates.together.images_per_second) | {
        "images": rates.images,
        "threads": rates.cores,
        "alone": {stage: round(rate.images_per_second, 1) for stage, rate in rates.alone.items()},
        "bound_by": rates.bound_by,
        "together_by_slowest": round(rates.of_slowest, 4),
        "core_us": round(1e6 * rates.together.core_seconds, 2),
    }


def _row(graph: float, together: float) -> dict[str, Any]:
    return {
        "images_s": round(together, 1),
        "graph_images_s": round(graph, 1),
        "share_of_graph": round(together / graph, 4),
    }


def _calls(engine: Engine, images: np.ndarray, seconds: float) -> float:
    """Images a second of calls with all of them."""
    batch = torch.from_numpy(images)
    engine(batch)
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        engine(batch)
        count += len(batch)
    return count / (time.perf_counter() - start)
