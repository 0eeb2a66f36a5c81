"""Classifying image files in batches, and what comes of it as a table and as JSON."""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from mobilevit_fast.cli.console import percent, printable
from mobilevit_fast.cli.labels import Labels
from mobilevit_fast.cli.photos import Photo, Problem
from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.loading import Loaded

Classes = tuple[tuple[int, float], ...]
"""(index, probability) from the most probable down."""

MAX_LINES = 50
"""Images of which a table has a line each."""
_SHOWN = 10


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
            "failed": self.failed + len(self.problems),
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

    def to_tables(self) -> Iterator[Table]:
        """A line for each image that was answered; of many images a summary, the first, and the least certain."""
        answered = [answer for answer in self.answers if answer.error is None]
        if len(answered) <= MAX_LINES:
            yield self._lines(answered)
            return
        yield self._summary(answered)
        yield self._lines(answered[:_SHOWN], f"the first {_SHOWN}")
        uncertain = heapq.nsmallest(_SHOWN, answered, key=lambda answer: answer.classes[0][1])
        yield self._lines(uncertain, f"the {_SHOWN} least certain")

    @property
    def shortened(self) -> bool:
        """Whether the tables do not have all images."""
        return len(self.answers) - self.failed > MAX_LINES

    def _lines(self, answers: Sequence[Answer], title: str | None = None) -> Table:
        labelled = any(answer.label is not None for answer in self.answers)
        table = Table(title=title, title_justify="left")
        table.add_column("image", overflow="fold")
        table.add_column("class", overflow="fold")
        table.add_column("probability", justify="right")
        if labelled:
            table.add_column("expected", overflow="fold")
        for answer in answers:
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

    def _summary(self, answers: Sequence[Answer]) -> Table:
        """How many images each class was the most probable of, the most frequent classes first."""
        found = Counter(answer.classes[0][0] for answer in answers)
        sums = dict.fromkeys(found, 0.0)
        for answer in answers:
            sums[answer.classes[0][0]] += answer.classes[0][1]
        table = Table(title=f"{len(answers)} images", title_justify="left")
        table.add_column("class", overflow="fold")
        table.add_column("images", justify="right")
        table.add_column("mean probability", justify="right")
        for index, count in found.most_common(_SHOWN):
            table.add_row(Text(printable(self.label(index))), str(count), percent(sums[index] / count))
        if len(found) > _SHOWN:
            others = sum(found.values()) - sum(count for _, count in found.most_common(_SHOWN))
            table.add_row(Text(f"{len(found) - _SHOWN} other classes"), str(others), "")
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
    engine = Engine(
        loaded.model, loaded.processor, (batch_size,), outputs=("label", "score"), top_k=top_k, acceleration=False
    )
    try:
        predictions = engine.each(photo.path for photo in photos)
        for photo, prediction in zip(photos, predictions, strict=True):
            label = None if labels is None else labels.of(photo)
            classes = tuple(zip(prediction.indices, prediction.scores, strict=True))
            answer = Answer(photo, classes, prediction.error, label)
            results.answers.append(answer)
            advance(answer)
    except KeyboardInterrupt:
        results.interrupted = True
    results.seconds = time.perf_counter() - start
    return results
