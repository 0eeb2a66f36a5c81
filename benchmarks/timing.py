"""Timing in interleaved rounds, with the host's clock or the device's."""

import gc
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks.gpu.process import without_folders

WARM_UP_CALLS = 3
TURN_SECONDS = 0.02
"""How long a turn of a provider is to take: many calls of a short one, one of a long one."""
MAX_CALLS, ROUNDS, MIN_ROUNDS = 200, 15, 3


class Clock(Protocol):
    """Measures a device."""

    def elapsed(self, call: Callable[[], Any], count: int) -> float:
        """Seconds of the device for so many calls, one after the other."""


class HostClock:
    """Clock of the host.

    Threads of the library before have time to fall asleep (``rest``: seconds after a turn; those of OpenMP and ONNX
    Runtime spin for up to 20 ms before they do). Then, directly before its measurement, a call runs once unmeasured: it
    finds in the caches what it left there itself and its threads awake, as in a program that uses one library only.
    """

    def __init__(self, rest: float = 0.05) -> None:
        self.rest = rest

    def elapsed(self, call: Callable[[], Any], count: int) -> float:
        """Seconds for so many calls, one after the other."""
        collecting = gc.isenabled()
        gc.disable()  # a collection would fall on whichever call happens to trigger it
        try:
            call()
            start = time.perf_counter()
            for _ in range(count):
                call()
            return time.perf_counter() - start
        finally:
            if collecting:
                gc.enable()
            time.sleep(self.rest)


class Timed(NamedTuple):
    """Results of rounds: seconds of a call in each round; or, of those that failed, why."""

    seconds: dict[str, list[float]]
    reasons: dict[str, str]


def reason_of(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {without_folders(str(error).strip() or 'no message')}"


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    clock: Clock,
    seconds: float,
    rounds: int = ROUNDS,
    now: Callable[[], float] = time.monotonic,
    most_calls: int = MAX_CALLS,
) -> Timed:
    """Time every call in a turn of each round, in an order drawn anew: a GPU's changing clock, and whatever else a
    machine does, meets all alike.

    Rounds end early, but for the first three, when the time is up. A call that raises is out, with its reason; the
    others go on.
    """
    end = now() + seconds
    shuffle = random.Random(0).shuffle
    timed = Timed({}, {})
    counts: dict[str, int] = {}

    def measure(name: str, count: int) -> float | None:
        try:
            return clock.elapsed(calls[name], count)
        except Exception as error:  # of whatever a provider does wrong its own row tells
            timed.reasons[name] = reason_of(error)
            timed.seconds.pop(name, None)
            counts.pop(name, None)
            return None

    for name in calls:
        taken = measure(name, WARM_UP_CALLS)
        if taken is not None and most_calls > 1:
            taken = measure(name, 1)
        if taken is not None:
            counts[name] = max(1, min(most_calls, round(TURN_SECONDS / taken))) if taken > 0 else most_calls
            timed.seconds[name] = []
    for done in range(rounds):
        if done >= MIN_ROUNDS and now() > end:
            break
        order = list(counts)
        shuffle(order)
        for name in order:
            taken = measure(name, counts[name])
            if taken is not None:
                timed.seconds[name].append(taken / counts[name])
    return timed


def statistics(seconds: list[float], share: int = 1) -> dict[str, float]:
    """Median, 20th and 80th percentile and minimum in milliseconds, each divided by ``share`` (images in a call)."""
    p20, median, p80 = np.percentile(seconds, (20, 50, 80))
    named = {"median_ms": median, "p20_ms": p20, "p80_ms": p80, "min_ms": min(seconds)}
    return {name: float(f"{1e3 * value / share:.5g}") for name, value in named.items()}


def times_of(seconds: list[float], images: int) -> dict[str, Any]:
    """Milliseconds of a call over the rounds and, from their median, images a second."""
    times: dict[str, Any] = statistics(seconds)
    return {**times, "rounds": len(seconds), "images_s": float(f"{images / times['median_ms'] * 1e3:.5g}")}
