"""Classifying image files in batches, and what comes of it as a table and as JSON."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from mobilevit_fast import limits
from mobilevit_fast.cli.console import described, percent, printable
from mobilevit_fast.cli.labels import Labels
from mobilevit_fast.cli.loading import Loaded
from mobilevit_fast.cli.photos import Photo, Problem

Classes = tuple[tuple[int, float], ...]
"""(index, probability) from the most probable down."""


@dataclass(frozen=True)
class Answer:
    """Result of classifying one image.

    Attributes:
        photo: the file.
        classes: (index, probability) from the most probable down; empty with an error.
        error: why there is no prediction.
        label: index of the true class, if known.
    """

    photo: Photo
    classes: Classes = ()
    error: str | None = None
    label: int | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the most probable class is the true one; None when either is unknown."""
        return None if self.label is None or not self.classes else self.classes[0][0] == self.label


@dataclass
class Results:
    """Answers for all images, in their order.

    Attributes:
        id2label: names of the classes, not necessarily all.
        problems: paths without any image.
        answers: for the images, up to where the work was interrupted.
        seconds: spent on them.
        interrupted: whether images are missing because somebody did not want to wait.
    """

    id2label: dict[int, str]
    problems: Sequence[Problem] = ()
    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def failed(self) -> int:
        """Number of images that could not be read."""
        return sum(answer.error is not None for answer in self.answers)

    def accuracy_line(self) -> str | None:
        """`correct 199 of 210 (94.8 %)`, or None without labels."""
        known = [answer.correct for answer in self.answers if answer.correct is not None]
        if not known:
            return None
        return f"correct {sum(known)} of {len(known)} ({percent(sum(known) / len(known))})"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        known = [answer.correct for answer in self.answers if answer.correct is not None]
        summary: dict[str, Any] = {
            "images": len(self.answers),
            "failed": self.failed,
            "seconds": round(self.seconds, 6),
        }
        if known:
            summary |= {"labelled": len(known), "correct": sum(known), "accuracy": sum(known) / len(known)}
        if self.interrupted:
            summary["interrupted"] = True
        errors = [{"path": str(problem.path), "error": problem.error} for problem in self.problems]
        return {"images": [self._image(answer) for answer in self.answers], "errors": errors, "summary": summary}

    def label(self, index: int) -> str:
        """The name of a class, and one like transformers' where the configuration has none."""
        return self.id2label.get(index, f"LABEL_{index}")

    def _image(self, answer: Answer) -> dict[str, Any]:
        values: dict[str, Any] = {
            "path": str(answer.photo.path),
            "predictions": [
                {"label": self.label(index), "index": index, "probability": probability}
                for index, probability in answer.classes
            ],
        }
        if answer.label is not None:
            values["expected"] = {"label": self.label(answer.label), "index": answer.label}
        if answer.error is not None:
            values["error"] = answer.error
        return values

    def to_table(self) -> Table:
        """One line for each image that was answered."""
        labelled = any(answer.label is not None for answer in self.answers)
        table = Table()
        table.add_column("image", overflow="fold")
        table.add_column("class", overflow="fold")
        table.add_column("probability", justify="right")
        if labelled:
            table.add_column("expected", overflow="fold")
        for answer in self.answers:
            if answer.error is not None:
                continue
            style = "red" if answer.correct is False else ""
            row = [
                Text(printable(answer.photo.path)),
                Text("\n".join(printable(self.label(index)) for index, _ in answer.classes), style=style),
                Text("\n".join(percent(probability) for _, probability in answer.classes)),
            ]
            if labelled:
                row.append(Text("" if answer.label is None else printable(self.label(answer.label))))
            table.add_row(*row)
        return table


def classify(
    photos: list[Photo],
    loaded: Loaded,
    *,
    top_k: int,
    batch_size: int,
    labels: Labels | None,
    advance: Callable[[Answer], None],
    problems: Sequence[Problem] = (),
) -> Results:
    """Classify image files. Whatever befalls one of them, the others are answered.

    Args:
        photos: the files; one that cannot be read or classified gets an answer with an error.
        loaded: classification model and processor.
        top_k: predictions for each image, at most all classes.
        batch_size: images in one call of the model, fewer where they are large.
        labels: true classes, if known.
        advance: called with each answer, in order.
        problems: paths without images, to be told along with the answers.
    """
    results = Results(dict(loaded.model.config.id2label), problems)
    start = time.perf_counter()
    try:
        for batch in _batches(photos, loaded, batch_size):
            for answer in _classify_batch(batch, loaded, top_k, labels):
                results.answers.append(answer)
                advance(answer)
    except KeyboardInterrupt:
        results.interrupted = True
    results.seconds = time.perf_counter() - start
    return results


def _batches(photos: list[Photo], loaded: Loaded, batch_size: int) -> Iterator[list[tuple[Photo, torch.Tensor | str]]]:
    """Photos with their images (channels, height, width) or why there is none; no batch holds too many pixels."""
    batch: list[tuple[Photo, torch.Tensor | str]] = []
    pixels = 0
    for photo in photos:
        image = _prepare(photo.path, loaded)
        batch.append((photo, image))
        pixels += math.prod(image.shape[1:]) if isinstance(image, torch.Tensor) else 0
        if len(batch) == batch_size or pixels >= limits.MAX_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _classify_batch(
    batch: list[tuple[Photo, torch.Tensor | str]], loaded: Loaded, top_k: int, labels: Labels | None
) -> Iterator[Answer]:
    found: dict[int, Classes | str] = {}
    # Without a crop images differ in size, and only equal ones make a batch.
    readable = [(index, image) for index, (_, image) in enumerate(batch) if isinstance(image, torch.Tensor)]
    readable.sort(key=lambda pair: pair[1].shape)
    for _, group in groupby(readable, key=lambda pair: pair[1].shape):
        indices, images = zip(*group, strict=True)
        found.update(zip(indices, _answers(images, loaded, top_k), strict=True))
    for index, (photo, image) in enumerate(batch):
        answer = image if isinstance(image, str) else found[index]
        label = None if labels is None else labels.of(photo)
        if isinstance(answer, str):
            yield Answer(photo, (), answer, label)
        else:
            yield Answer(photo, answer, None, label)


def _prepare(path: Path, loaded: Loaded) -> torch.Tensor | str:
    """The image as (channels, height, width), or why it is none."""
    try:
        return loaded.processor([path])["pixel_values"][0]
    except Exception as error:
        return described(error).removeprefix(f"image 0 ({path}): ")


def _answers(images: Sequence[torch.Tensor], loaded: Loaded, top_k: int) -> list[Classes | str]:
    """The classes of images of one shape, or why there are none: tried alone where they fail together."""
    try:
        return _top_classes(torch.stack(list(images)), loaded, top_k)
    except Exception as error:
        if len(images) == 1:
            return [described(error)]
    return [answer for image in images for answer in _answers([image], loaded, top_k)]


@torch.inference_mode()
def _top_classes(pixel_values: torch.Tensor, loaded: Loaded, top_k: int) -> list[Classes | str]:
    """The classes, or why there are none, for each of (images, channels, height, width)."""
    model = loaded.model
    logits = model(pixel_values.to(device=model.device, dtype=model.dtype)).logits  # (images, classes)
    probabilities = logits.float().softmax(dim=-1)
    top = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=-1)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [
        tuple(zip(indices, values, strict=True)) if all(map(math.isfinite, values)) else "the model's answer is NaN"
        for indices, values in pairs
    ]
