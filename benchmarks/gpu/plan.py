"""Stages of a session in their order, and how they share the time."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

STAGES: dict[str, tuple[float, str]] = {
    "build": (20, "builds the package's libraries in place, for this GPU, and loads them"),
    "test": (20, "the tests of the CUDA and of the Triton kernels on the GPU"),
    "models": (35, "whole models: this package, transformers, timm, torch.compile, ResNet-50"),
    "ops": (7, "every operator by itself against its floor, and what the GPU does at best"),
    "sm90-regions": (8, "every region of a model by the kernels of compute capability 9.0 and by those for every chip"),
    "engine": (16, "the engine from files to answers, beside its own CUDA graph and other people's loops"),
    "sanitize": (6, "the CUDA kernels under compute-sanitizer: memcheck, racecheck"),
    "counters": (4, "hardware counters of the CUDA kernels, by ncu"),
}
"""Stages in their order: share of the time, and what for.

Time that a stage leaves goes to those after it. The build has more than it should need, since without it nothing of
CUDA is measured.
"""


USUAL_SECONDS = 720.0
"""Seconds of a whole session that the times of the steps are made for."""


class Allowance:
    """Shares the time that is left among the things that are left to do, by their weights."""

    def __init__(
        self, weights: Mapping[str, float], seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._weights = dict(weights)
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds until everything has to be over."""
        return max(0.0, self._end - self._clock())

    def take(self, name: str) -> float:
        """Seconds for this one, which is begun now: its share of what is left."""
        everything = sum(self._weights.values())
        return self.left * self._weights.pop(name) / everything


def budgets(names: Iterable[str], seconds: float) -> dict[str, float]:
    """Seconds that each of these stages has at least, in the order of ``STAGES``; together they are all there are."""
    chosen = {name: weight for name, (weight, _) in STAGES.items() if name in set(names)}
    return {name: seconds * weight / sum(chosen.values()) for name, weight in chosen.items()}


class Queue:
    """The time of a stage, whose steps come in order of importance: each uses what it needs, while there is any.

    Fair shares would leave every compiler too little to finish. In less time there are fewer steps, not shorter ones;
    in more time, each may also take longer.
    """

    def __init__(self, stage: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._scale = scale_of(stage, seconds)

    @property
    def left(self) -> float:
        """Seconds until the stage has to be over."""
        return max(0.0, self._end - self._clock())

    def limit(self, seconds: float) -> float:
        """Seconds that a step begun now may take, which usually may take ``seconds``."""
        return min(self.left, seconds * self._scale)


def scale_of(stage: str, seconds: float) -> float:
    """How much longer than usual the steps of a stage may take that has so many seconds."""
    return max(1.0, seconds / budgets(STAGES, USUAL_SECONDS)[stage])


def planned(stage: str, seconds: float, steps: Sequence[float]) -> list[float]:
    """Seconds that the steps of a stage have, were each to use all of its own; 0: only if others leave some."""
    left, found = seconds, []
    for step in steps:
        found.append(min(left, step * scale_of(stage, seconds)))
        left -= found[-1]
    return found
