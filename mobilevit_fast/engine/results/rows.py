"""One answer as a row: the columns that were asked for, in values that every format can hold."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from mobilevit_fast.engine.names import is_text, to_text
from mobilevit_fast.engine.predictions import Prediction
from mobilevit_fast.files import encoded_picture

Row: TypeAlias = dict[str, Any]
"""`source` as `to_text` gives it, `error`, and for each output its value, None where there is none."""

LISTS = ("label", "index", "score")
"""Outputs of which a row has as many as classes were asked for, the most probable first."""

VECTORS = ("embedding", "logits")
"""Outputs that are float32 arrays (features,) and (classes,)."""

MASK = "mask"
OUTPUTS = (*LISTS, *VECTORS, MASK)

_MAX_CLASS_ID = 65535


def checked_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """The outputs, in one order.

    Raises:
        ValueError: there is no such output, or none at all.
    """
    if isinstance(outputs, str) or not outputs or not set(outputs) <= set(OUTPUTS):
        raise ValueError(f"expected outputs, some of {', '.join(OUTPUTS)}, got {outputs!r}")
    return tuple(name for name in OUTPUTS if name in outputs)


def row_of(prediction: Prediction, outputs: Sequence[str]) -> Row:
    """The row of a prediction; a mask is the content of a PNG."""
    error = "an error without a message" if prediction.error == "" else _readable(prediction.error)
    row: Row = {"source": to_text(prediction.source), "error": error}
    lists = {
        "label": [_readable(label) for label in prediction.labels],
        "index": list(map(int, prediction.indices)),
        "score": [float(score) if math.isfinite(score) else None for score in prediction.scores],
    }
    for name in outputs:
        if name in LISTS:
            row[name] = lists[name] or None
        elif name in VECTORS:
            vector = getattr(prediction, name)
            row[name] = None if vector is None else np.asarray(vector, np.float32).reshape(-1)
        else:
            row[name] = None if prediction.mask is None else _encoded(prediction.mask)
    return row


def size_of(row: Row) -> int:
    """About how many bytes of memory a row takes."""
    return (
        500 + sum(value.nbytes for value in row.values() if isinstance(value, np.ndarray)) + len(row.get(MASK) or b"")
    )


def _encoded(mask: np.ndarray) -> bytes:
    """A PNG of class ids; of 8 bits if the mask is, of 16 otherwise.

    Raises:
        ValueError: class ids that 16 bits do not hold.
    """
    if mask.dtype != np.uint8:
        if mask.size and not 0 <= mask.min() <= mask.max() <= _MAX_CLASS_ID:
            raise ValueError(f"expected a mask of class ids within [0, {_MAX_CLASS_ID}], got {mask.min()}…{mask.max()}")
        mask = mask.astype(np.uint16)
    return encoded_picture(Image.fromarray(np.ascontiguousarray(mask)), "PNG")


def _readable(text: str | None) -> str | None:
    """Text that is valid Unicode."""
    return text if text is None or is_text(text) else text.encode("utf-8", "backslashreplace").decode("utf-8")
