"""The numbered files of a folder of results, by their names."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mobilevit_fast.engine.results.formats import FORMATS

_PART = re.compile(rf"part-(?:(\d{{5,}})-of-(\d{{5,}})-)?(\d{{6,}})\.({'|'.join(FORMATS)})")


@dataclass(frozen=True, order=True)
class Shard:
    """One of several runs that share the work; (0, 1) for one that has all of it."""

    index: int
    count: int

    @property
    def infix(self) -> str:
        """Part of the names of its files: nothing for the only one."""
        return "" if self.count == 1 else f"-{self.index:05}-of-{self.count:05}"


class Part(NamedTuple):
    """A part of a shard's results; parts sort in the order in which they are read."""

    shard: Shard
    number: int
    format: str

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"part{self.shard.infix}-{self.number:06}.{self.format}"


def part_of(name: str) -> Part | None:
    """The part whose file has this name."""
    match = _PART.fullmatch(name)
    if match is None:
        return None
    shard = Shard(int(match[1]), int(match[2])) if match[1] else Shard(0, 1)
    part = Part(shard, int(match[3]), match[4])
    return part if part.name == name else None


def parts_in(folder: Path, formats: Iterable[str]) -> list[Part]:
    """The parts of a folder in these formats, in their order."""
    allowed = set(formats)
    found = (part_of(name) for name in os.listdir(folder))
    return sorted(part for part in found if part is not None and part.format in allowed)
