"""Threads that always take the most urgent of what there is to do."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

import torch

Task = Callable[[], None]


class Workers:
    """Threads over one queue, most urgent first.

    Args:
        count: of the threads.
        name: for debuggers.
        failed: called with an error that a task raises, in its thread, which goes on.
        alone: each computes by itself: PyTorch and the kernels start no further threads in it.
    """

    def __init__(self, count: int, name: str, failed: Callable[[BaseException], None], *, alone: bool = False) -> None:
        self._failed = failed
        self._tasks: list[tuple[tuple[int, ...], int, Task]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        started = threading.Barrier(count + 1)
        self._threads = [
            threading.Thread(target=self._work, args=(started, alone), name=f"{name} {i}", daemon=True)
            for i in range(count)
        ]
        threads_of_torch = torch.get_num_threads()
        for thread in self._threads:
            thread.start()
        started.wait()
        if alone:  # the number is each thread's own, but new threads take over what was set last in any of them
            torch.set_num_threads(threads_of_torch)

    def submit(self, urgency: tuple[int, ...], task: Task) -> None:
        """Have a task done, before all of larger urgency that wait. Nothing happens after `close`."""
        with self._changed:
            heapq.heappush(self._tasks, (urgency, next(self._order), task))
            self._changed.notify()

    def close(self, patience: float | None = None) -> None:
        """Drop what waits, and end the threads when they are done with what they do.

        Args:
            patience: seconds to wait for all of them, after which they end by themselves; None: until they do.
        """
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify_all()
        end = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    def _work(self, started: threading.Barrier, alone: bool) -> None:
        if alone:
            torch.get_num_threads()  # asks once for the number of all, which would else replace the one set next
            torch.set_num_threads(1)
        started.wait()
        while True:
            with self._changed:
                while not self._tasks and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                _, _, task = heapq.heappop(self._tasks)
            try:
                task()
            except BaseException as error:
                self._failed(error)
            del task  # and what it holds, while the next one is waited for
