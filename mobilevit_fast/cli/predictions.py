"""Classifying image files in batches, and what comes of it as a table and as JSON."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from mobilevit_fast.cli.console import percent
from mobilevit_fast.cli.loading import Loaded
from mobilevit_fast.cli.photos import Labels, Photo
from mobilevit_fast.image_transforms import ImageError


@dataclass(frozen=True)
class Answer:
    """What is known of one image after classification.

    Attributes:
        photo: the file.
        classes: (index, probability) from the most probable down; empty with an error.
        error: why there is no prediction.
        label: index of the true class, if known.
    """

    photo: Photo
    classes: tuple[tuple[int, float], ...] = ()
    error: str | None = None
    label: int | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the most probable class is the true one; None when either is unknown."""
        return None if self.label is None or not self.classes else self.classes[0][0] == self.label


@dataclass
class Results:
    """Answers for all images, in their order."""

    id2label: dict[int, str]
    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0

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
        return {"images": [self._image(answer) for answer in self.answers], "summary": summary}

    def _image(self, answer: Answer) -> dict[str, Any]:
        values: dict[str, Any] = {
            "path": str(answer.photo.path),
            "predictions": [
                {"label": self.id2label[index], "index": index, "probability": probability}
                for index, probability in answer.classes
            ],
        }
        if answer.label is not None:
            values["expected"] = {"label": self.id2label[answer.label], "index": answer.label}
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
                Text(str(answer.photo.path)),
                Text("\n".join(self.id2label[index] for index, _ in answer.classes), style=style),
                Text("\n".join(percent(probability) for _, probability in answer.classes)),
            ]
            if labelled:
                row.append(Text("" if answer.label is None else self.id2label[answer.label]))
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
) -> Results:
    """Classify image files.

    Args:
        photos: the files; one that cannot be read gets an answer with an error.
        loaded: classification model and processor.
        top_k: predictions for each image, at most all classes.
        batch_size: images in one call of the model.
        labels: true classes, if known.
        advance: called with each answer, in order.
    """
    results = Results(dict(loaded.model.config.id2label))
    start = time.perf_counter()
    for first in range(0, len(photos), batch_size):
        for answer in _classify_batch(photos[first : first + batch_size], loaded, top_k, labels):
            results.answers.append(answer)
            advance(answer)
    results.seconds = time.perf_counter() - start
    return results


def _classify_batch(photos: list[Photo], loaded: Loaded, top_k: int, labels: Labels | None) -> Iterator[Answer]:
    prepared = [_prepare(photo.path, loaded) for photo in photos]
    classes: dict[int, tuple[tuple[int, float], ...]] = {}
    # Without a crop images differ in size, and only equal ones make a batch.
    readable = [(index, image) for index, image in enumerate(prepared) if isinstance(image, torch.Tensor)]
    readable.sort(key=lambda pair: pair[1].shape)
    for _, group in groupby(readable, key=lambda pair: pair[1].shape):
        indices, images = zip(*group, strict=True)
        classes.update(zip(indices, _top_classes(torch.stack(images), loaded, top_k), strict=True))
    for index, (photo, image) in enumerate(zip(photos, prepared, strict=True)):
        label = None if labels is None else labels.of(photo)
        yield Answer(photo, classes.get(index, ()), image if isinstance(image, str) else None, label)


def _prepare(path: Path, loaded: Loaded) -> torch.Tensor | str:
    """The image as (channels, height, width), or why it is none."""
    try:
        return loaded.processor([path])["pixel_values"][0]
    except ImageError as error:
        return str(error).removeprefix(f"image 0 ({path}): ")


@torch.inference_mode()
def _top_classes(pixel_values: torch.Tensor, loaded: Loaded, top_k: int) -> list[tuple[tuple[int, float], ...]]:
    """(index, probability) from the most probable down, for each of (images, channels, height, width)."""
    model = loaded.model
    logits = model(pixel_values.to(device=model.device, dtype=model.dtype)).logits  # (images, classes)
    probabilities = logits.float().softmax(dim=-1)
    top = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=-1)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [tuple(zip(indices, values, strict=True)) for indices, values in pairs]
