"""Parameters of tests that `make test` leaves to `make test-all`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def thorough(value: Any) -> Any:
    """One parameter, or a tuple of those of one case."""
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.thorough)


def thorough_where(values: Iterable[Any], is_thorough: Callable[[Any], bool]) -> list[Any]:
    """All parameters, those marked of which a function says so."""
    return [thorough(value) if is_thorough(value) else value for value in values]
