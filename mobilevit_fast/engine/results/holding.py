"""Locks on a folder of results: one writer, or one for each of its shards."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobilevit_fast.engine.results.parts import Shard
from mobilevit_fast.files import lock, unlock

_OPENING = ".opening.lock"
_WRITING = ".writing.lock"


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Keep others from opening the folder for writing meanwhile; this waits for them."""
    with _opened(folder / _OPENING) as descriptor:
        lock(descriptor, wait=True)
        yield


class Holding:
    """A shard of a folder that nobody else writes as long as this is held.

    Attributes:
        alone: whether nobody writes any other shard, either; until `share`.
    """

    def __init__(self, descriptor: int, alone: bool) -> None:
        self.alone = alone
        self._descriptor = descriptor

    def share(self) -> None:
        """Let others write other shards."""
        lock(self._descriptor, wait=False, shared=True)
        self.alone = False


@contextmanager
def holding(folder: Path, shard: Shard) -> Iterator[Holding]:
    """Keep others from writing what this writer does; to be entered while opening.

    Raises:
        RuntimeError: somebody does already, or writes shards of another number, of which some are also these.
    """
    count = str(shard.count).encode()
    with _opened(folder / _WRITING) as common, _opened(folder / f"{_WRITING}{shard.infix}.own") as own:
        alone = lock(common, wait=False) is not False
        if alone:
            os.ftruncate(common, 0)
            os.pwrite(common, count, 0)
        elif lock(common, wait=False, shared=True) is False or os.pread(common, 32, 0) != count:
            raise taken(folder)
        if lock(own, wait=False) is False:
            raise taken(folder)
        yield Holding(common, alone)


def taken(folder: Path) -> RuntimeError:
    """To be raised: somebody else is writing."""
    return RuntimeError(f"{folder}: expected a folder that nobody else writes to, found another process at work there")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        unlock(descriptor)
        os.close(descriptor)
