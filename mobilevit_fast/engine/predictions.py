"""The answer for one source, and the outcome of a run over many."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one source, or why there is none.

    Attributes:
        source: name of the source.
        labels: names of the classes, most probable first.
        indices: of the same classes.
        scores: their probabilities.
        error: why there is no answer, in one line; then all else is empty.
        embedding: (features,) float32.
        logits: (classes,) float32.
        mask: (height, width) uint8 or int32 class ids of a segmentation.
    """

    source: str
    labels: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    error: str | None = None
    embedding: np.ndarray | None = None
    logits: np.ndarray | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class RunReport:
    """Outcome of a run.

    Attributes:
        images: answered in this run, and failed.
        failed: of these.
        skipped: that an earlier run had answered, or had failed at.
        skipped_failed: of these.
        seconds: that it took, from the first source to the last result written.
        images_per_second: answered.
        stages: what each stage did, see `Statistics.to_dict`.
        bound_by: the stage that the others waited for.
    """

    images: int
    failed: int
    skipped: int
    skipped_failed: int
    seconds: float
    images_per_second: float
    stages: dict[str, dict[str, Any]]
    bound_by: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))
