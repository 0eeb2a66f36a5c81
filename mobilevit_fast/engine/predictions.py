"""The answer for one source."""

from dataclasses import dataclass

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
