"""Streams and graphs of a GPU that is made up."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


class MadeUpEvent:
    def __init__(self) -> None:
        self.waited = False

    def synchronize(self) -> None:
        self.waited = True


class MadeUpStream:
    def __init__(self) -> None:
        self.waited_for: list[MadeUpEvent] = []

    def wait_event(self, event: MadeUpEvent) -> None:
        self.waited_for.append(event)


class MadeUpStreams:
    """Streams that do everything at once, and say what was asked of them."""

    def __init__(self) -> None:
        self.compute = MadeUpStream()
        self.copy_streams: list[MadeUpStream] = []
        self.has_images = False
        self.events: list[MadeUpEvent] = []

    def copying(self) -> MadeUpStream:
        self.copy_streams.append(MadeUpStream())
        return self.copy_streams[-1]

    def holds(self, images: Tensor) -> bool:
        return self.has_images

    def on(self, stream: MadeUpStream) -> AbstractContextManager[Any]:
        return nullcontext(stream)

    def event(self) -> MadeUpEvent:
        self.events.append(MadeUpEvent())
        return self.events[-1]

    def pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype)


class Captures:
    """Graphs that are calls made again over the same memory."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.replays = 0
        self.fails_at: int | None = None

    def __call__(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        if len(self.sizes) == self.fails_at:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = call()
        self.sizes.append(len(result.scores))

        def replay() -> None:
            self.replays += 1
            for old, new in zip(result, call(), strict=True):
                if old is not None:
                    old.copy_(new)

        return replay, result
