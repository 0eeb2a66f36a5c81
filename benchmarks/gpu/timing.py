"""Timing in interleaved rounds with a clock of the device's."""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from benchmarks.cpu.measure import statistics
from benchmarks.gpu.process import without_folders

WARM_UP_CALLS = 3
TURN_SECONDS = 0.02
"""How long a turn of a provider is to take: many calls of a short one, one of a long one."""
MOST_CALLS, ROUNDS, LEAST_ROUNDS = 200, 15, 3


class Clock(Protocol):
    """Measures a device."""

    def elapsed(self, call: Callable[[], Any], count: int) -> float:
        """Seconds of the device for so many calls, one after the other."""


class Timed(NamedTuple):
    """What rounds gave: seconds of a call in each round; or, of those that failed, why."""

    seconds: dict[str, list[float]]
    reasons: dict[str, str]


def reason_of(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {without_folders(str(error).strip() or 'no message')}"


def calls_in_a_turn(once: float) -> int:
    """How many calls of so many seconds."""
    return max(1, min(MOST_CALLS, round(TURN_SECONDS / once))) if once > 0 else MOST_CALLS


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    clock: Clock,
    seconds: float,
    rounds: int = ROUNDS,
    now: Callable[[], float] = time.monotonic,
) -> Timed:
    """Time every call once in each round, in an order drawn anew, so that a GPU's changing clock meets all alike.

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
        if measure(name, WARM_UP_CALLS) is not None:
            once = measure(name, 1)
            if once is not None:
                counts[name] = calls_in_a_turn(once)
                timed.seconds[name] = []
    for done in range(rounds):
        if done >= LEAST_ROUNDS and now() > end:
            break
        order = list(counts)
        shuffle(order)
        for name in order:
            taken = measure(name, counts[name])
            if taken is not None:
                timed.seconds[name].append(taken / counts[name])
    return timed


def times_of(seconds: list[float], images: int) -> dict[str, Any]:
    """Milliseconds of a call over the rounds and, from their median, images a second."""
    times: dict[str, Any] = statistics(seconds)
    return {**times, "rounds": len(seconds), "images_s": float(f"{images / times['median_ms'] * 1e3:.5g}")}
