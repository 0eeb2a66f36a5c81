"""Loops that people write from files to classes, with transformers' image processor, to compare the engine with."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from mobilevit_fast.engine.statistics import Stopwatch
from testing.peers import import_transformers

LABELS = {"pipeline": "transformers' pipeline", "dataloader-compile": "DataLoader and torch.compile"}
"""In the second, workers decode and resize."""
LOOPS = tuple(LABELS)

Way = Callable[[list[Any]], list[int]]
"""Classes of files."""
MIN_AGREEMENT = 0.9
"""Share of the files whose class every way has to have like the first: of those between two classes it may differ."""


class Classifier(NamedTuple):
    """A classification model of transformers, its image processor, and how it is fed.

    Attributes:
        module: on the device to compute on.
        processor: of transformers.
        batch: images of one call.
        workers: processes of a DataLoader.
        pipeline_workers: those of transformers' pipeline, whose own choice is none.
    """

    module: nn.Module
    processor: Any
    batch: int
    workers: int
    pipeline_workers: int = 0


def loops(classifier: Classifier, names: Sequence[str] = LOOPS) -> dict[str, Way]:
    """Ways of these names."""
    made = {"pipeline": _pipeline, "dataloader-compile": _loader}
    return {name: made[name](classifier) for name in names}


def interleaved(
    ways: Mapping[str, Way],
    sources: list[Any],
    rounds: int,
    seconds: float = float("inf"),
    like: Mapping[str, str] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each way over the same sources, turn by turn, behind a first turn that warms up and is compared.

    Args:
        ways: by their names.
        sources: what each answers.
        rounds: turns at most.
        seconds: no turn begins after these, but for the first that counts.
        like: the way whose answers another one has to have; of ways that it does not name, the first of all.

    Raises:
        RuntimeError: a way left something unanswered, or has other answers than it should.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[int]] = {}
    references = {name: next(iter(ways)) for name in ways} | dict(like or {})
    end = time.monotonic() + seconds
    for number in range(-1, rounds):
        if number > 0 and time.monotonic() > end:
            break
        for name, way in ways.items():
            with Stopwatch() as watch:
                answered = way(sources)
            expected = answers.setdefault(references[name], answered)
            same, count = sum(a == b for a, b in zip(expected, answered, strict=False)), len(sources)
            if len(answered) != count or same < MIN_AGREEMENT * count:
                raise RuntimeError(
                    f"{name}: expected {count} answers as by {references[name]}, got {len(answered)}, {same} alike"
                )
            if number >= 0:
                times[name].append(watch.seconds)
    return times


def _pipeline(classifier: Classifier) -> Way:
    device = next(classifier.module.parameters()).device
    pipeline = import_transformers().pipeline(
        "image-classification",
        model=classifier.module,
        image_processor=classifier.processor,
        device=device,
        batch_size=classifier.batch,
        num_workers=classifier.pipeline_workers,
    )

    indices: dict[str, int] = classifier.module.config.label2id  # type: ignore[union-attr,assignment]

    def answer(sources: list[Any]) -> list[int]:
        return [indices[best["label"]] for (best,) in pipeline([*map(str, sources)], top_k=1)]

    return answer


def _loader(classifier: Classifier) -> Way:
    first = next(classifier.module.parameters())
    compiled = torch.compile(classifier.module)
    kept: dict[tuple[Any, ...], Any] = {}  # loaders with their processes, which a job of a day starts once

    def answer(sources: list[Any]) -> list[int]:
        key = tuple(sources)
        if key not in kept:
            kept.clear()
            kept[key] = torch.utils.data.DataLoader(
                _Files(sources, classifier.processor),  # type: ignore[arg-type]
                batch_size=classifier.batch,
                num_workers=classifier.workers,
                pin_memory=first.is_cuda,
                persistent_workers=True,
            )
        classes = itertools.chain.from_iterable(
            compiled(images.to(first.device, first.dtype, non_blocking=True)).logits.argmax(-1)[:count].tolist()
            for images, count in _filled(kept[key], classifier.batch)
        )
        with torch.inference_mode():
            return list(classes)

    return answer


def _filled(batches: Any, size: int) -> Iterator[tuple[Tensor, int]]:
    """Batches of one size, since another would be compiled anew, with the number of their images that count."""
    for images in batches:
        missing = size - len(images)
        yield (torch.cat((images, images[:1].expand(missing, -1, -1, -1))) if missing else images), len(images)


class _Files:
    """Data set of files for a DataLoader."""

    def __init__(self, files: Sequence[Path], processor: Any) -> None:
        self.files, self.processor = files, processor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        torch.set_num_threads(1)
        with Image.open(self.files[index]) as picture:
            values: Tensor = self.processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"][0]
            return values
