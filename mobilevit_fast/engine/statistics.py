"""Time spent in each stage of an engine, and which of them bounds the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FIND, READ, DECODE, RESIZE = "find", "read", "decode", "resize"
COPY, FORWARD, WRITE = "copy", "forward", "write"
STAGES = (FIND, READ, DECODE, RESIZE, FORWARD, WRITE)
"""Stages of a run: sources are found, in folders, tables, tar files or on the standard input, then read, and so on."""
_ON_CORES = (DECODE, RESIZE, FORWARD)
"""Stages that on a CPU the same threads do."""


@dataclass
class Stage:
    """Work of one stage.

    Attributes:
        images: that went through.
        seconds: spent on them, of all threads together.
        core_seconds: time on a processor's core, of the same.
        threads: that can be at work in it at once.
    """

    images: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0
    threads: int = 1

    @property
    def rate(self) -> float | None:
        """Images a second that it could do if it had its threads for itself."""
        return self.images * self.threads / self.seconds if self.seconds else None


class Stopwatch:
    """Time spent within it by one thread, again and again.

    Args:
        images: of each time.
    """

    __slots__ = ("_core_start", "_each", "_start", "core_seconds", "images", "seconds")

    def __init__(self, images: int = 1) -> None:
        self._each = images
        self.images = 0
        self.seconds = self.core_seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._start, self._core_start = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
        self.core_seconds += time.thread_time() - self._core_start
        if kind is None:
            self.images += self._each


@dataclass
class Statistics:
    """Work of all stages, kept by several threads."""

    stages: dict[str, Stage] = field(default_factory=lambda: {name: Stage() for name in STAGES})
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, stage: str, watch: Stopwatch) -> None:
        """Count images and the time spent on them."""
        with self._lock:
            one = self.stages[stage]
            one.images += watch.images
            one.seconds += watch.seconds
            one.core_seconds += watch.core_seconds

    def add_parts(self, watch: Stopwatch, parts: Mapping[str, tuple[int, float]]) -> None:
        """Count stages that took turns within one watch.

        The clock of a core asks the system, which takes as long as a small image does. So it is read once for all of
        them, and they share its time as they do the seconds.

        Args:
            watch: around all of them.
            parts: images and seconds by stage.
        """
        seconds = sum(own for _, own in parts.values()) or 1.0
        with self._lock:
            for stage, (images, own) in parts.items():
                one = self.stages[stage]
                one.images += images
                one.seconds += own
                one.core_seconds += watch.core_seconds * own / seconds

    def bound_by(self, seconds: float, shared: bool) -> str:
        """The stage that the others wait for.

        Args:
            seconds: that everything took.
            shared: decoding, resizing and computing have the same threads; else each stage has its own. The busiest
                threads bound, and of stages that share them the one that takes most of a core's time.
        """
        busy = {name: one.seconds / one.threads / max(seconds, 1e-9) for name, one in self.stages.items()}
        if not shared:
            return max(STAGES, key=busy.__getitem__)
        slowest = max((name for name in STAGES if name not in _ON_CORES), key=busy.__getitem__)
        if busy[slowest] > sum(busy[name] for name in _ON_CORES):
            return slowest
        return max(_ON_CORES, key=lambda name: self.stages[name].core_seconds)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """For JSON."""
        return {
            name: {
                "images": one.images,
                "seconds": round(one.seconds, 6),
                "core_seconds": round(one.core_seconds, 6),
                "threads": one.threads,
                "images_per_second": None if one.rate is None else round(one.rate, 3),
            }
            for name, one in self.stages.items()
        }
