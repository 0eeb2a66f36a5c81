"""A thread that writes answers while the next ones are computed."""

from __future__ import annotations

import queue
import threading
from types import TracebackType

from mobilevit_fast.engine.predictions import Prediction
from mobilevit_fast.engine.results import ResultsFolder
from mobilevit_fast.engine.statistics import Stopwatch

_AT_ONCE = 32
"""Answers that are handed over together, since handing over takes about as long as adding one."""
_WAITING = 4
"""Such parcels that may wait to be written; then whoever adds waits."""


class Writer:
    """Adds answers to a folder of results, in order, in a thread of its own; at the end of the context all of them.

    Args:
        results: open; nobody else may use it meanwhile but to ask what is done.

    Attributes:
        watch: time spent writing.
    """

    def __init__(self, results: ResultsFolder) -> None:
        self.watch = Stopwatch(0)
        self._results = results
        self._parcel: list[Prediction] = []
        self._parcels: queue.Queue[list[Prediction] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="mobilevit_fast write", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def add(self, prediction: Prediction) -> None:
        """Have an answer written.

        Raises:
            OSError, ValueError: an earlier one could not be written.
        """
        self._parcel.append(prediction)
        if len(self._parcel) >= _AT_ONCE:
            self._hand_over()
            if self._error is not None:
                raise self._error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hand_over()
        self._parcels.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _hand_over(self) -> None:
        parcel, self._parcel = self._parcel, []
        self._parcels.put(parcel)

    def _work(self) -> None:
        while (parcel := self._parcels.get()) is not None:
            if self._error is not None:
                continue  # whoever adds must not wait for ever
            try:
                with self.watch:
                    for prediction in parcel:
                        self._results.add(prediction)
                self.watch.images += len(parcel)
            except BaseException as error:  # raised where answers are added
                self._error = error
