"""Rates of an engine's stages, each alone and all together."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mobilevit_fast.engine.engine import Engine
from mobilevit_fast.engine.preprocessing import Preprocessing
from mobilevit_fast.engine.sources import Source, iterate
from mobilevit_fast.engine.statistics import COPY, DECODE, FORWARD, READ, RESIZE, Statistics
from mobilevit_fast.engine.workers import Workers
from mobilevit_fast.images import ImageError, MobileViTImageProcessor

_SECONDS = 2.0
MAX_IMAGES = 512
"""Images to measure with, which are held decoded at once."""
_MAX_BYTES = 1 << 29
"""Bytes of these images, decoded."""
_CHUNK = 8


@dataclass(frozen=True)
class Rate:
    """Rate at which a stage, or all of them, goes through the images.

    Attributes:
        images_per_second: by the clock on the wall, with all threads it has.
        core_seconds: time on the cores for one image, of the whole process.
    """

    images_per_second: float
    core_seconds: float


class Agreement(NamedTuple):
    """Number of images of which two ways give the same, among all that are compared."""

    same: int
    images: int

    @property
    def share(self) -> float | None:
        """Between 0 and 1; None where there is nothing to compare."""
        return self.same / self.images if self.images else None


@dataclass
class EngineRates:
    """Result of `measure`.

    Attributes:
        images: measured, over and over.
        cores: threads that decode.
        shared: whether the stages share the cores.
        alone: rates of stages by name.
        together: of the whole engine.
        failed: images left out, since they cannot be read.
    """

    images: int
    cores: int
    shared: bool
    together: Rate
    alone: dict[str, Rate] = field(default_factory=dict)
    failed: int = 0

    @property
    def bound_by(self) -> str:
        """The slowest stage."""
        return min(self.alone, key=lambda name: self.alone[name].images_per_second)

    @property
    def possible(self) -> float:
        """Images a second that the stages alone allow: all one after another where they share the cores."""
        if self.shared:
            return 1 / sum(1 / rate.images_per_second for rate in self.alone.values())
        return self.alone[self.bound_by].images_per_second

    @property
    def of_slowest(self) -> float:
        """Together, by the slowest stage alone."""
        return self.together.images_per_second / self.alone[self.bound_by].images_per_second

    @property
    def reached(self) -> float:
        """Share of what is possible."""
        return self.together.images_per_second / self.possible

    @property
    def overhead(self) -> float:
        """Time on the cores for one image, by that of the stages alone."""
        return self.together.core_seconds / sum(rate.core_seconds for rate in self.alone.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "images": self.images,
            "failed": self.failed,
            "cores": self.cores,
            "stages_share_the_cores": self.shared,
            "alone": {name: vars(rate) for name, rate in self.alone.items()},
            "together": vars(self.together),
            "bound_by": self.bound_by,
            "possible_images_per_second": self.possible,
            "reached": self.reached,
            "together_by_slowest": self.of_slowest,
            "core_seconds_by_those_alone": self.overhead,
        }


def first_of(sources: Any, limit: int | None = None) -> list[Source]:
    """Sources to measure with and to compare: those that are read once, such as standard input, can be used again.

    Args:
        sources: as in `Engine.stream`.
        limit: sources at most; never more than `MAX_IMAGES`.
    """
    return [*islice(iterate(sources, limit=limit), MAX_IMAGES)]


def measure(engine: Engine, sources: Any, *, limit: int | None = None, seconds: float = _SECONDS) -> EngineRates:
    """Measure the stages of an engine one by one, then the engine as a whole, on the same images.

    Args:
        engine: to measure.
        sources: as in `Engine.stream`.
        limit: sources at most.
        seconds: for each stage, at least.

    Raises:
        ValueError: none of the images can be read.
    """
    found = first_of(sources, limit)
    good, contents, decoded, failed = _readable(engine, found)
    if not good:
        raise ValueError(f"expected images to measure with, got {len(found)} sources without any that can be read")
    preprocessing, workers = engine.preprocessing, engine.decode_threads
    batch = min(engine.batch_sizes[-1], len(good))
    slots = threading.local()

    def slot() -> Tensor | None:
        if preprocessing.shape is None:
            return None
        if not hasattr(slots, "images"):
            slots.images = engine.slot(batch)
        return slots.images

    def resize(index: int) -> None:
        place = slot()
        preprocessing.write(decoded[index], None if place is None else place[index % batch])

    plan = engine.plan(None)
    rates = {
        READ: _rate(lambda i: good[i].read(), len(good), plan.readers, seconds),
        DECODE: _rate(lambda i: preprocessing.decode(contents[i]), len(good), workers, seconds),
        RESIZE: _rate(resize, len(good), workers, seconds),
    }
    computing = plan.computing or workers
    if preprocessing.shape is not None:
        batches = [[engine.slot(batch).random_(0, 256).permute(0, 3, 1, 2)] for _ in range(computing)]
    else:
        batches = _of_any_size(preprocessing, decoded, batch)

    def forward(index: int) -> None:
        for images in batches[index % len(batches)]:
            engine.compute(images)

    def copy(index: int) -> None:
        for images in batches[index]:
            engine.compute.copy(images)

    if plan.computing is not None:
        rates[COPY] = _scaled(_rate(copy, len(batches), 1, seconds, 1), batch)
    calls = max(4 * computing, len(batches))
    calls += -calls % len(batches)  # each batch as often
    rates[FORWARD] = _scaled(_rate(forward, calls, computing, seconds, 1, plan.computing is None), batch)
    together = _together(engine, good, seconds)
    return EngineRates(len(good), workers, plan.computing is None, together, rates, failed)


def agreement(one: Engine, other: Engine, sources: Sequence[Any]) -> Agreement:
    """Images whose most probable class is the same by two engines, among those that both answer."""
    pairs = zip(one.stream(sources), other.stream(sources), strict=True)
    same = [a.indices[:1] == b.indices[:1] for a, b in pairs if a.error is None and b.error is None]
    return Agreement(sum(same), len(same))


def exactness(engine: Engine, processor: MobileViTImageProcessor, sources: Sequence[Source]) -> Agreement:
    """Images that an engine makes the pixel values of, to the bit, that an image processor does, among those it reads.

    Args:
        engine: of exact preprocessing.
        processor: the one it has.
        sources: of encoded images or of arrays.
    """
    preprocessing, same = engine.preprocessing, []
    for source in sources:
        try:
            content = source.read()
            pixels = preprocessing.decode(content)
            slot = None if preprocessing.shape is None else torch.empty((*preprocessing.shape, 3), dtype=torch.uint8)
            values = preprocessing.write(pixels, slot)
        except Exception:  # an image that nobody can read; a run has the reasons
            continue
        if values is None:
            assert slot is not None
            values = preprocessing.values(slot.permute(2, 0, 1)[None])[0]  # (height, width, 3) -> (3, height, width)
        try:
            expected = processor(content)["pixel_values"][0]
        except ImageError:
            same.append(False)
            continue
        same.append(torch.equal(values, expected))
    return Agreement(sum(same), len(same))


def _readable(engine: Engine, sources: Sequence[Source]) -> tuple[list[Source], list[Any], list[Any], int]:
    """The sources that can be decoded, their contents and their pixels, as many as may be held; how many cannot be."""
    failed = 0
    good, contents, decoded = [], [], []
    held = 0
    for source in sources:
        if held > _MAX_BYTES:
            break
        try:
            content = source.read()
            pixels = engine.preprocessing.decode(content).copy(order="K")  # as the decoder lays them
        except Exception:  # told as the number of those left out; a run has the reasons
            failed += 1
            continue
        held += pixels.nbytes
        good.append(source)
        contents.append(content)
        decoded.append(pixels)
    return good, contents, decoded, failed


def _of_any_size(preprocessing: Preprocessing, decoded: Sequence[Any], batch: int) -> list[list[Tensor]]:
    """Batches of images that differ in size, those of one size together: (N, 3, height, width) float32 each."""
    batches, held = [], 0
    for first in range(0, len(decoded) - batch + 1, batch):
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for pixels in decoded[first : first + batch]:
            values = preprocessing.write(pixels, None)
            assert values is not None
            held += values.nbytes
            by_shape.setdefault(values.shape, []).append(values)
        batches.append([torch.stack(images) for images in by_shape.values()])
        if held > _MAX_BYTES:
            break
    return batches


def _rate(
    work: Callable[[int], Any], count: int, threads: int, seconds: float, chunk: int = _CHUNK, alone: bool = True
) -> Rate:
    """Rate of work on items 0 to count by several threads, over and over until the time is over."""
    errors: list[BaseException] = []
    done = threading.Semaphore(0)
    workers = Workers(threads, "mobilevit_fast benchmark", errors.append, alone=alone)

    def do(first: int) -> None:
        try:
            with torch.inference_mode():
                for i in range(first, min(first + chunk, count)):
                    work(i)
        finally:
            done.release()

    def once() -> None:
        firsts = range(0, count, chunk)
        for first in firsts:
            workers.submit((first,), partial(do, first))
        for _ in firsts:
            done.acquire()
        if errors:
            raise errors[0]

    try:
        once()
        start, core_start = time.perf_counter(), _core_seconds()
        rounds = 0
        while time.perf_counter() - start < seconds or not rounds:
            once()
            rounds += 1
        took = time.perf_counter() - start
        return Rate(rounds * count / took, (_core_seconds() - core_start) / (rounds * count))
    finally:
        workers.close()


def _together(engine: Engine, sources: Sequence[Source], seconds: float) -> Rate:
    for _ in engine.answers(iter(sources), Statistics(), peek=False):
        pass
    count = 0
    start, core_start = time.perf_counter(), _core_seconds()

    def over_and_over() -> Iterator[Source]:
        yield from sources
        while time.perf_counter() - start < seconds:
            yield from sources

    for _ in engine.answers(over_and_over(), Statistics(), peek=False):
        count += 1
    took = time.perf_counter() - start
    return Rate(count / took, (_core_seconds() - core_start) / count)


def _scaled(rate: Rate, images: int) -> Rate:
    """The rate in images of a rate in batches."""
    return Rate(rate.images_per_second * images, rate.core_seconds / images)


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
