"""Whether a class was given another attribute since: one question about all of them at once.

A region has a dozen classes with as many names each that count. To look at all of them at every call would take a
percent of the time of a small model. CPython caches what it looked up in a class, and drops that when an attribute of
the class, or of one of its bases, is set; a flag of the class tells. So a class that is derived from all those that
count, and in which nobody else looks anything up, tells of a change of any. What changed, and whether it matters, is
asked after that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

_HAS_CACHED = 1 << 19
"""Py_TPFLAGS_VALID_VERSION_TAG, of CPython up to 3.13."""
_flags: Any = type.__dict__["__flags__"].__get__
_mro: Any = type.__dict__["__mro__"].__get__


class _Untouched(type):
    """Metaclass of classes whose attributes are found without a trace in the cache, whoever asks."""

    def __getattribute__(cls, name: str) -> Any:
        if name in type.__dict__:
            return type.__dict__[name].__get__(cls, _Untouched)
        for base in _mro(cls):
            if name in base.__dict__:
                value = base.__dict__[name]
                return value.__get__(None, cls) if hasattr(value, "__get__") else value
        raise AttributeError(f"type object {_mro(cls)[1].__name__!r} has no attribute {name!r}")


class Silent:
    """Comes first in classes that nobody is to hear of: their bases register subclasses, or change them."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


class Changes:
    """Counts the changes of classes, as far as anybody asks.

    Attributes:
        counts: whether it does; where it cannot, each class has to be looked at.
    """

    def __init__(self) -> None:
        self._kinds: dict[type, None] = {}
        self._told: list[list[type]] = []
        self._telling: list[type] = []
        self._number = 0
        self._lock = threading.Lock()
        self.counts = True

    def number(self) -> int:
        """How many there were until now."""
        if not self._is_quiet():
            with self._lock:
                if not self._is_quiet():
                    self._listen()
        return self._number

    def follow(self, kind: type) -> None:
        """Tell of changes of a class from now on, too."""
        with self._lock:
            if kind in self._kinds or not self.counts:
                return
            self._kinds[kind] = None
            if not self._tell_of(kind):  # it has another metaclass
                self._told, self._telling = [], []
            self._listen()
            self.counts = bool(self._telling) and _tells()

    def _tell_of(self, kind: type) -> bool:
        """Have one of the classes that tell of others tell of this one too, or one of its own."""
        for i, others in enumerate([*self._told, []]):
            kinds = sorted([*others, kind], key=lambda kind: -len(kind.__mro__))
            if (telling := _told_by(kinds)) is not None:
                self._told = [*self._told[:i], kinds, *self._told[i + 1 :]]
                self._telling = [*self._telling[:i], telling, *self._telling[i + 1 :]]
                return True
        return False

    def _is_quiet(self) -> bool:
        for kind in self._telling:  # noqa: SIM110  # a generator would take longer than the question
            if not _flags(kind) & _HAS_CACHED:
                return False
        return True

    def _listen(self) -> None:
        self._number += 1  # before: what changes from now on is told, what changed is looked at
        for kind in self._telling:
            type.__getattribute__(kind, "forward")


def _tells() -> bool:
    """Whether the flag is set when something was looked up, and taken away when an attribute is set."""
    base: Any = type("Base", (), {})
    telling: Any = _told_by([base])
    seen = []
    for _ in range(2):
        with suppress(AttributeError):
            type.__getattribute__(telling, "forward")
        seen.append(bool(_flags(telling) & _HAS_CACHED))
        base.forward = None
        seen.append(bool(_flags(telling) & _HAS_CACHED))
    return seen == [True, False] * 2


def _told_by(kinds: Iterable[type]) -> type | None:
    """A class that changes whenever one of these does, None where the orders of their bases do not allow that."""
    try:
        return _Untouched("Changes", (Silent, *kinds), {})
    except TypeError:
        return None
