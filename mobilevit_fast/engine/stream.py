"""The way of images through the threads of an engine: read, decode and resize, compute; in order, within bounds.

A batch is a slot of memory for the images and their sources. As many batches are on the way as there are slots, and a
slot is free again when its answers were taken: nothing piles up, however many sources there are and however slow their
reader is.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mobilevit_fast.engine.errors import described
from mobilevit_fast.engine.model import Answers, Row, rows_of
from mobilevit_fast.engine.preprocessing import Preprocessing
from mobilevit_fast.engine.sources import Source, take
from mobilevit_fast.engine.statistics import DECODE, FIND, FORWARD, READ, RESIZE, Statistics, Stopwatch
from mobilevit_fast.engine.workers import Workers

_CHUNK = 8
"""Files that a thread reads and decodes before it asks for others."""
_MAX_HELD = 1 << 26
"""Bytes of encoded images, of tar files or tables, that a batch holds before it is read: it is smaller then."""
_PATIENCE = 1.0
"""Seconds that the end waits for threads that read: somebody's server may never answer."""
_FORWARD, _DECODE = 0, 1
"""Urgency: a batch that is computed frees its slot."""

Answer = Row | str
"""Answer for one image, or why there is none."""
Answered = tuple[Source, Answer]
Compute = Callable[[Tensor], Answers]
"""Answers for images: (N, 3, height, width), uint8 or what the image processor makes of them."""


class Plan(NamedTuple):
    """How many of what.

    Attributes:
        batch_size: images of one call of the model.
        slots: batches on the way.
        readers: threads that read files.
        workers: threads that decode.
        computing: threads that call the model; None for those that decode, each with a batch of its own.
    """

    batch_size: int
    slots: int
    readers: int
    workers: int
    computing: int | None


@dataclass
class _Batch:
    index: int
    sources: Sequence[Source]
    slot: Tensor | None
    pending: int
    loose: dict[int, Tensor] = field(default_factory=dict)  # images that are not in the slot
    answers: dict[int, Answer] = field(default_factory=dict)


class _Failed(NamedTuple):
    """The iterator of sources raised an error, after this many batches."""

    batches: int
    error: BaseException


class Stream:
    """One run over sources. Iterating gives every source with its answer, in order, and can be done once.

    Args:
        sources: read one after the other by a thread of its own, a little ahead of the answers.
        preprocessing: makes images of what they hold.
        compute: the model; called by several threads at once, each with other images.
        plan: how many threads and batches.
        slot: makes memory for a batch of images of one size, (batch, height, width, 3) uint8.
        statistics: of the stages, added to.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        preprocessing: Preprocessing,
        compute: Compute,
        plan: Plan,
        slot: Callable[[tuple[int, ...]], Tensor],
        statistics: Statistics,
    ) -> None:
        self._sources = sources
        self._preprocessing = preprocessing
        self._compute = compute
        self._plan = plan
        self._statistics = statistics
        self._slots: queue.SimpleQueue[Tensor | None] = queue.SimpleQueue()
        for _ in range(plan.slots):
            shape = preprocessing.shape
            self._slots.put(None if shape is None else slot((plan.batch_size, *shape, 3)))
        self._changed = threading.Condition()
        self._finished: dict[int, _Batch] = {}
        self._end: _Failed | int | None = None  # number of batches, once it is known
        self._closed = threading.Event()
        self._ahead = threading.BoundedSemaphore(plan.readers + 2 * plan.workers)
        """Chunks that were read and not decoded."""

    def __iter__(self) -> Iterator[Answered]:
        plan = self._plan
        self._workers = Workers(plan.workers, "mobilevit_fast decode", self._fail, alone=True)
        self._computers = self._workers
        if plan.computing is not None:
            self._computers = Workers(plan.computing, "mobilevit_fast compute", self._fail)
        self._readers = Workers(plan.readers, "mobilevit_fast read", self._fail)
        threading.Thread(target=self._feed, name="mobilevit_fast sources", daemon=True).start()
        try:
            for index in itertools.count():
                batch = self._next(index)
                if batch is None:
                    return
                yield from ((source, batch.answers[i]) for i, source in enumerate(batch.sources))
                self._slots.put(batch.slot)
        finally:
            self._closed.set()
            self._slots.put(None)  # for the thread of the sources, which may wait for one
            for _ in range(plan.readers):
                self._release()
            self._readers.close(_PATIENCE)
            for workers in {self._workers, self._computers}:
                workers.close()

    def _next(self, index: int) -> _Batch | None:
        with self._changed:
            while index not in self._finished:
                if isinstance(self._end, _Failed) and index >= self._end.batches:
                    raise self._end.error
                if isinstance(self._end, int) and index >= self._end:
                    return None
                self._changed.wait()
            return self._finished.pop(index)

    def _fail(self, error: BaseException, batches: int = 0) -> None:
        """End with an error that is none of an image, after the answers of this many batches."""
        with self._changed:
            if not isinstance(self._end, _Failed) or batches < self._end.batches:
                self._end = _Failed(batches, error)
            self._changed.notify_all()

    def _feed(self) -> None:
        """Make batches of the sources as slots get free."""
        count = 0
        iterator = iter(self._sources)
        end: _Failed | int | None = None
        while end is None:
            slot = self._slots.get()
            if self._closed.is_set():
                return
            sources: list[Source] = []
            is_last = False
            with Stopwatch() as find:
                try:
                    is_last = take(iterator, sources, self._plan.batch_size, _MAX_HELD)
                except BaseException as error:  # which is the reader's of the answers, who gets those before it first
                    end = _Failed(count + bool(sources), error)
            find.images = len(sources)
            self._statistics.add(FIND, find)
            if sources:
                self._begin(_Batch(count, sources, slot, len(sources)))
                count += 1
            if is_last:
                end = count
        with self._changed:
            if self._end is None:
                self._end = end
            self._changed.notify_all()

    def _begin(self, batch: _Batch) -> None:
        size = max(1, min(_CHUNK, -(-len(batch.sources) // self._plan.workers)))
        for first in range(0, len(batch.sources), size):
            chunk = range(first, min(first + size, len(batch.sources)))
            self._readers.submit((batch.index, first), partial(self._read, batch, chunk))

    def _read(self, batch: _Batch, chunk: range) -> None:
        self._ahead.acquire()
        if self._closed.is_set():
            return
        contents: list[Any] = []
        with Stopwatch(len(chunk)) as read:
            for i in chunk:
                try:
                    contents.append(batch.sources[i].read())
                except ImportError as error:  # a package that all sources of this kind need
                    self._fail(error, batch.index)
                    return
                except Exception as error:
                    contents.append(error)
        self._statistics.add(READ, read)
        self._workers.submit((_DECODE, batch.index, chunk.start), partial(self._decode, batch, chunk, contents))

    def _release(self) -> None:
        with suppress(ValueError):  # nobody waits for it
            self._ahead.release()

    def _decode(self, batch: _Batch, chunk: range, contents: list[Any]) -> None:
        decode, write, now = self._preprocessing.decode, self._preprocessing.write, time.perf_counter
        decoded = resized = 0
        decoding = resizing = 0.0
        with Stopwatch() as both:
            for i, content in zip(chunk, contents, strict=True):
                name = batch.sources[i].name
                try:
                    if isinstance(content, Exception):
                        raise content
                    start = now()
                    pixels = decode(content)
                    between = now()
                    decoded += 1
                    decoding += between - start
                    loose = write(pixels, None if batch.slot is None else batch.slot[i], name)
                    resized += 1
                    resizing += now() - between
                    if loose is not None:
                        batch.loose[i] = loose
                except Exception as error:
                    batch.answers[i] = described(error).removeprefix(f"{name}: ")
        self._statistics.add_parts(both, {DECODE: (decoded, decoding), RESIZE: (resized, resizing)})
        contents.clear()
        self._release()
        with self._changed:
            batch.pending -= len(chunk)
            is_whole = batch.pending == 0
        if is_whole:
            self._computers.submit((_FORWARD, batch.index), partial(self._forward, batch))

    def _forward(self, batch: _Batch) -> None:
        try:
            self._compute_batch(batch)
        except BaseException as error:  # an interrupt, say; what was answered before it is told first
            self._fail(error, batch.index)

    def _compute_batch(self, batch: _Batch) -> None:
        in_slot = [i for i in range(len(batch.sources)) if i not in batch.answers and i not in batch.loose]
        with Stopwatch(len(in_slot) + len(batch.loose)) as forward, torch.inference_mode():
            if in_slot:
                assert batch.slot is not None
                whole = len(in_slot) == len(batch.sources)
                images = batch.slot[: len(in_slot)] if whole else batch.slot[in_slot]
                self._answer(batch, in_slot, images.permute(0, 3, 1, 2))  # (N, height, width, 3) -> (N, 3, ...)
            by_kind: dict[tuple[Any, ...], list[int]] = {}
            for i, image in sorted(batch.loose.items()):
                by_kind.setdefault((image.shape, image.dtype), []).append(i)
            for rows in by_kind.values():
                self._answer(batch, rows, torch.stack([batch.loose[i] for i in rows]))
        batch.loose.clear()
        self._statistics.add(FORWARD, forward)
        with self._changed:
            self._finished[batch.index] = batch
            self._changed.notify_all()

    def _answer(self, batch: _Batch, rows: Sequence[int], images: Tensor) -> None:
        """Answers for images; tried one by one where they fail together.

        Raises:
            Exception: the device is lost, or several images, all of which fail in the same way, are not what is wrong.
        """
        try:
            batch.answers.update(zip(rows, rows_of(self._compute(images)), strict=True))
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(rows) == 1:
                batch.answers[rows[0]] = described(error)
                return
            for k, row in enumerate(rows):
                self._answer(batch, [row], images[k : k + 1])
            if rows[0] not in batch.loose and all(batch.answers[row] == described(error) for row in rows):
                raise
