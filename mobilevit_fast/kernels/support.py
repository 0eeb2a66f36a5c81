"""Answer of a kernel to whether it takes a case."""

from __future__ import annotations

from typing import NamedTuple


class Support(NamedTuple):
    """Whether a kernel takes a case and, if it does not, why, in words for the user."""

    ok: bool
    reason: str = ""
