"""Scikit-learn's handwritten digits as pictures, split into a part to train on and a part held out."""

from typing import NamedTuple, Self

import numpy as np
from PIL import Image

HELD_OUT_SHARE = 0.2
SPLIT_SEED = 0
DIGITS = 10

_BRIGHTEST = 16  # the data set counts the ink in 4x4 blocks of a scan, so a pixel is 0 to 16


class DigitImages(NamedTuple):
    """Pictures of digits, white on black.

    Attributes:
        images: grey pictures of 8x8 pixels, PIL mode "L".
        labels: (len(images),) int64, the digit on each.
        rows: (len(images),) int64, where each stands in scikit-learn's data set.
    """

    images: list[Image.Image]
    labels: np.ndarray
    rows: np.ndarray

    def select(self, positions: np.ndarray) -> Self:
        """The pictures at these positions, in this order."""
        return type(self)([self.images[i] for i in positions], self.labels[positions], self.rows[positions])


def load_digit_images() -> tuple[DigitImages, DigitImages]:
    """The 1797 pictures that come with scikit-learn, without a download.

    A fifth of the pictures of every digit is held out, drawn with a fixed seed: it is the same fifth in training and in
    every later evaluation, whatever the seed of the training.

    Returns:
        The pictures to train on and the held-out ones, both in the order of the data set.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the handwritten digits come with scikit-learn, which is not installed (pip install scikit-learn)"
        ) from error
    data = load_digits()
    labels = data.target.astype(np.int64)
    # (1797, 8, 8) counts to uint8
    pixels = np.round(data.images * (255 / _BRIGHTEST)).astype(np.uint8)
    everything = DigitImages([Image.fromarray(picture) for picture in pixels], labels, np.arange(len(labels)))
    held_out = _held_out(labels)
    return everything.select(np.flatnonzero(~held_out)), everything.select(np.flatnonzero(held_out))


def _held_out(labels: np.ndarray) -> np.ndarray:
    """Marks a fifth of every class, (len(labels),) bool."""
    # RandomState rather than default_rng: NumPy promises that its numbers never change.
    random = np.random.RandomState(SPLIT_SEED)
    marks = np.zeros(len(labels), dtype=bool)
    for digit in range(DIGITS):
        rows = random.permutation(np.flatnonzero(labels == digit))
        marks[rows[: round(HELD_OUT_SHARE * len(rows))]] = True
    return marks
