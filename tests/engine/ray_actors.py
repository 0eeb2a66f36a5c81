"""Classifiers that something happens to, and the folder by which they and the tests tell each other."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from mobilevit_fast.integrations.ray import Classifier

SIGNALS = "MVF_TEST_RAY"
"""Environment variable of every process of the cluster: the folder. Whoever has it in its environment belongs to it."""
CRASHED = "crashed"
LATE = "late"
"""Beginning of the names of images that a gated classifier never comes to."""


class Crashing(Classifier):
    """Takes its process with it, the first time that any of them is asked; then says how many threads decode."""

    def __call__(self, batch: Mapping[str, np.ndarray]) -> pa.Table:
        """Answers for a batch, and a column of the number of threads."""
        try:
            (Path(os.environ[SIGNALS]) / CRASHED).touch(exist_ok=False)
        except FileExistsError:
            table = super().__call__(batch)
            return table.append_column("threads", pa.array([self.engine.decode_threads] * len(table)))
        os._exit(1)


class Gated(Classifier):
    """Answers but for late images, at which it waits for the end."""

    def __call__(self, batch: Mapping[str, np.ndarray]) -> pa.Table:
        """Answers for a batch."""
        while any(Path(path).name.startswith(LATE) for path in batch["path"]):
            time.sleep(0.1)
        return super().__call__(batch)
