"""Everything that a user may name, as one sequence of sources."""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from PIL import Image

from mobilevit_fast.engine.names import digest
from mobilevit_fast.engine.sources import storage, walking
from mobilevit_fast.engine.sources.shards import Member, is_shard, members
from mobilevit_fast.engine.sources.source import Source, failing
from mobilevit_fast.engine.sources.tables import TABLES, rows_of_lines, rows_of_table
from mobilevit_fast.files import user_path

_Candidate: TypeAlias = Source | Member
"""Things that may be selected: a source, or a member of a tar file, which is then read at once."""

_ENCODED = (bytes, bytearray, memoryview)
_STANDARD_INPUT = "-"


def iterate(
    sources: Any,
    *,
    shard: tuple[int, int] | None = None,
    limit: int | None = None,
    skip: Callable[[str], bool] | None = None,
) -> Iterator[Source]:
    """Every image once, in an order that is the same each time, found as it is asked for.

    Args:
        sources: one of these, or any iterable of them, nested at will:

            - a path or URL, of an image whatever its suffix; of a folder, whose images count by their suffix, at any
              depth, in the order of names, without hidden ones; of a table (.txt with a path a line, .csv, .parquet);
              of a tar file; or a pattern with `*`, `?`, `[…]`, `**`; `-` for paths on the standard input, one a line
              or ended by NULs. A `pathlib.Path` is never a pattern. What stands in tables is the path or URL of an
              image or of a tar file. Relative paths there are those of the table's folder or those of the working
              directory, for all rows of it: the first row that exists in one of them, tried in this order, decides.
            - a numpy array, a torch tensor, a PIL image, or an encoded image as bytes: named `array 0`, `tensor 1`,
              `image 2`, `bytes 3` by their position among what was given. An array of four axes is many images.
            - a `Source`.
        shard: (index, count): of all images those whose position has this remainder. The shards of the same sources
            are disjoint and are all of them together.
        limit: only images at a position below; the same ones for all shards together.
        skip: told the name of each image of the shard; where it says yes, the image is left out, and one in a tar file
            is not read. It has its position nonetheless.

    Returns:
        Sources with distinct names: an image that comes again under the same name is left out. What holds no image is
        a source as well, whose `read` says why.

    Raises:
        ValueError: a shard or limit that makes no sense.
        TypeError: `sources` is none of this.
        ImportError: while iterating: a package is missing for some kind of source.
    """
    index, count = shard or (0, 1)
    if not 0 <= index < count:
        raise ValueError(f"expected a shard (index, count) with 0 <= index < count, got {shard}")
    if limit is not None and limit < 0:
        raise ValueError(f"expected a limit of at least 0, got {limit}")
    if not isinstance(sources, (str, os.PathLike, Source, Image.Image, *_ENCODED, Iterable)) or _is_no_item(sources):
        raise TypeError(f"expected paths, images, or an iterable of them, got {type(sources).__name__}")
    return _selected(_candidates(sources), index, count, limit, skip)


def each(images: Any) -> Iterator[Source]:
    """One source for each image, however often it comes: a path or URL is that of an image, and nothing else.

    Args:
        images: one of, or any iterable of: paths, URLs, arrays, tensors, PIL images, encoded images as bytes.
    """
    for position, item in enumerate(_flat(images)):
        if isinstance(item, (str, os.PathLike)):
            name = os.fsdecode(item)
            yield Source(name, partial(storage.read, _normal(name)))
        else:
            yield _in_memory(item, position)


def count(sources: Sequence[str], *, shard: tuple[int, int] | None = None, limit: int | None = None) -> int | None:
    """How many sources `iterate` finds, where that takes reading names alone.

    Args:
        sources: paths, patterns and URLs.
        shard, limit: see `iterate`.

    Returns:
        None where images would be read, those of archives and of tables that hold them; where something is at a URL or
        can be read only once.

    Raises:
        OSError, ValueError, ImportError: what `iterate` raises.
    """
    if any(name == _STANDARD_INPUT or storage.is_url(name) or is_shard(name) or _is_pipe(name) for name in sources):
        return None
    holds_images = False

    def names() -> Iterator[_Candidate]:
        nonlocal holds_images
        for candidate in _candidates(sources):
            holds_images = isinstance(candidate, Member) or not callable(candidate.content)
            if holds_images:
                return
            yield candidate

    index, of = shard or (0, 1)
    found = sum(1 for _ in _selected(names(), index, of, limit, None))
    return None if holds_images else found


def _is_pipe(name: str) -> bool:
    return os.path.exists(name) and stat.S_ISFIFO(os.stat(name).st_mode)


def take(sources: Iterator[Source], into: list[Source], count: int, held: int) -> bool:
    """Add the next sources to a list until it has ``count``, or these hold ``held`` bytes; whether they came to an end.

    Raises:
        Exception: the iterator's own; what came before it is in the list.
    """
    size = 0
    while len(into) < count and size < held:
        source = next(sources, None)
        if source is None:
            return True
        into.append(source)
        size += source.held
    return False


def is_missing(name: str) -> bool:
    """Whether a path or pattern that a user named stands for nothing on this machine. URLs are not looked up."""
    if name == _STANDARD_INPUT or storage.is_url(name):
        return False
    name = _normal(name)
    return not any(walking.matches(name)) if walking.is_pattern(name) else not storage.exists(name)


def _selected(
    candidates: Iterator[_Candidate], index: int, count: int, limit: int | None, skip: Callable[[str], bool] | None
) -> Iterator[Source]:
    seen: set[bytes] = set()
    for candidate in candidates if limit != 0 else ():
        key = digest(candidate.name)
        if key in seen:
            continue
        position = len(seen)
        seen.add(key)
        if position % count == index and not (skip and skip(candidate.name)):
            source = candidate.load() if isinstance(candidate, Member) else candidate
            if source is not None:
                yield source
        if limit is not None and len(seen) >= limit:
            return


def _candidates(sources: Any) -> Iterator[_Candidate]:
    for position, item in enumerate(_flat(sources)):
        if isinstance(item, str):
            yield from _paths(item, may_be_pattern=True)
        elif isinstance(item, os.PathLike):
            yield from _paths(os.fsdecode(item), may_be_pattern=False)
        else:
            yield _in_memory(item, position)


def _in_memory(item: Any, position: int) -> Source:
    """The source of what is no path, named by its kind and its position among what was given."""
    if isinstance(item, Source):
        return item
    if isinstance(item, np.ndarray):
        return Source(f"array {position}", item)
    if isinstance(item, torch.Tensor):
        return Source(f"tensor {position}", item)
    if isinstance(item, Image.Image):
        return Source(f"image {position}", item)
    if isinstance(item, _ENCODED):
        return Source(f"bytes {position}", bytes(item))
    expected = "a path, a numpy array, a torch tensor, a PIL image or bytes"
    return failing(f"source {position}", f"expected {expected}, got {type(item).__name__}")


def _flat(sources: Any) -> Iterator[Any]:
    """Every single item of what may be nested."""
    if _is_item(sources):
        yield sources
    elif isinstance(sources, np.ndarray) and sources.dtype.kind in "UO":
        yield from _flat(sources.tolist())
    else:
        for item in sources:
            yield from _flat(item)


def _is_item(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "UO" and value.ndim != 4
    if isinstance(value, torch.Tensor):
        return value.ndim != 4
    return not isinstance(value, Iterable) or isinstance(value, (str, os.PathLike, *_ENCODED)) or _is_no_item(value)


def _is_no_item(value: Any) -> bool:
    """Whether it is an iterable that is no list of images: a dictionary, or a file, whose lines are none."""
    return isinstance(value, dict) or hasattr(value, "readline")


def _paths(name: str, *, may_be_pattern: bool) -> Iterator[_Candidate]:
    """Sources that a path or URL stands for, which a user named."""
    if may_be_pattern and name == _STANDARD_INPUT:
        yield from _rows(_lines_of_input(), lambda path: path)
        return
    name = _normal(name)
    if may_be_pattern and walking.is_pattern(name):
        found = False
        for match in walking.matches(name):
            found = True
            yield from _named(match)
        if not found:
            yield walking.no_match(name)
    else:
        yield from _named(name)


def _named(name: str) -> Iterator[_Candidate]:
    """Sources that a single path or URL stands for. A suffix of images or archives is believed: nobody waits for it."""
    if walking.is_image(name):
        yield _file(name)
        return
    try:
        is_folder = storage.is_folder(name)
    except OSError as error:
        yield failing(name, error)
        return
    if is_folder:
        yield from (_file(found) if isinstance(found, str) else found for found in walking.walk(name))
    elif walking.suffix(name) in TABLES:
        yield from _rows(rows_of_table(name), _base_of(name))
    elif is_shard(name):
        yield from members(name)
    else:
        yield _file(name)


def _rows(rows: Iterable[str | Source], resolve: Callable[[str], str]) -> Iterator[_Candidate]:
    for row in rows:
        if isinstance(row, Source):
            yield row
            continue
        name = resolve(_normal(row))
        if is_shard(name):
            yield from members(name)
        else:
            yield _file(name)


def _base_of(table: str) -> Callable[[str], str]:
    """A function that makes a table's paths those of its folder, or leaves them those of the working directory."""
    folder = storage.parent(table)
    decided = storage.is_url(table) or not folder
    in_folder = True

    def resolve(path: str) -> str:
        nonlocal decided, in_folder
        beside = storage.join(folder, path)
        if not decided and beside != path:
            if storage.exists(beside):
                decided = True
            elif storage.exists(path):
                decided, in_folder = True, False
        return beside if in_folder else path

    return resolve


def _lines_of_input() -> Iterator[str | Source]:
    found = False
    if sys.stdin is None:
        yield failing(_STANDARD_INPUT, "expected a standard input to read from, found it closed")
        return
    try:
        with _input() as file:
            for path in rows_of_lines(file):
                found = True
                yield path
    except (OSError, ValueError) as error:
        yield failing(_STANDARD_INPUT, error)
        return
    if not found:
        yield failing(_STANDARD_INPUT, "expected paths of images on the standard input, found none")


@contextmanager
def _input() -> Iterator[BinaryIO]:
    """The standard input by a reader of its own: a thread that waits in sys.stdin's aborts the end of the process."""
    try:
        number = sys.stdin.fileno()
    except OSError:  # what stands in its place is no file
        yield sys.stdin.buffer
        return
    with open(os.dup(number), "rb") as file:
        yield file


def _file(name: str) -> Source:
    return Source(name, partial(storage.read, name))


def _normal(name: str) -> str:
    """A path as it is named in results: `./a//b` is `a/b`, `~` is the home folder. A URL is what it is."""
    if storage.is_url(name):
        return name
    if name.startswith("~"):
        name = str(user_path(name))
    if name.startswith("./") or name.endswith("/") or "//" in name or "/./" in name:
        return str(PurePath(name))
    return name
