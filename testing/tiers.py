"""Parameters of tests that `make test` leaves to `make test-all`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def thorough(value: Any) -> Any:
    """One parameter, or a tuple of those of one case."""
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.thorough)


def thorough_but(cases: Iterable[Any], *kept: str) -> list[Any]:
    """All cases of ``pytest.param`` with ids, marked but for those whose ids end with one of these."""
    return [
        case if str(case.id).endswith(kept) else pytest.param(*case.values, id=case.id, marks=pytest.mark.thorough)
        for case in cases
    ]


def thorough_where(values: Iterable[Any], is_thorough: Callable[[Any], bool]) -> list[Any]:
    """All parameters, those marked of which a function says so."""
    return [thorough(value) if is_thorough(value) else value for value in values]
