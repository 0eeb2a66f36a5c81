"""Paths of images in text, CSV and Parquet, and on the standard input, read row by row."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, TypeAlias

from mobilevit_fast.engine.optional import needed
from mobilevit_fast.engine.sources import storage
from mobilevit_fast.engine.sources.source import Source, failing
from mobilevit_fast.engine.sources.walking import is_image, suffix

COLUMNS = ("path", "image", "file", "url", "source")
"""Columns that may hold the paths; the first of these that a table has does, whatever its capitals."""

TABLES = (".txt", ".csv", ".parquet")
"""Suffixes of files that are lists of images."""

Row: TypeAlias = str | Source
"""A path as it stands in a table, or the image itself, or why there is none."""

_CHUNK = 1 << 16
_LONGEST_PATH = 1 << 16
_ROWS = 4096
_ROWS_OF_IMAGES = 16


def rows_of_table(name: str) -> Iterator[Row]:
    """The rows of a file. A table that cannot be read, or only to some row, ends in a source that says why.

    Raises:
        ImportError: a package is missing that reads it.
    """
    kind = suffix(name)
    read = {".txt": lambda file, _: rows_of_lines(file), ".csv": _rows_of_csv, ".parquet": _rows_of_parquet}[kind]
    empty = True
    try:
        with storage.open_stream(name) as file:
            for row in read(file, name):
                empty = False
                yield row
    except ImportError:
        raise
    except Exception as error:  # of three readers, and of whatever file system the table is on
        yield failing(name, error)
        return
    if empty:
        yield failing(name, f"expected a {kind} file with the paths of images, found none")


def rows_of_lines(file: BinaryIO) -> Iterator[str]:
    """Paths, one a line; if there is a NUL among them, they end at NULs, as those of `find -print0` do.

    Raises:
        ValueError: a line that is too long for a path.
    """
    rest, end = b"", b"\n"
    is_first = True
    read = getattr(file, "read1", file.read)  # what there is, without waiting for more
    while chunk := read(_CHUNK):
        if is_first:
            chunk, is_first = chunk.removeprefix(b"\xef\xbb\xbf"), False
        rest += chunk
        if b"\0" in chunk:
            end = b"\0"
        *lines, rest = rest.split(end)
        if len(rest) > _LONGEST_PATH:
            raise ValueError(f"expected one path a line, got a line of more than {_LONGEST_PATH:,} bytes")
        yield from _decoded(lines, end)
    yield from _decoded([rest], end)


def _decoded(lines: list[bytes], end: bytes) -> Iterator[str]:
    for line in lines:
        path = os.fsdecode(line if end == b"\0" else line.removesuffix(b"\r"))
        if path if end == b"\0" else path.strip():
            yield path


def _rows_of_csv(file: BinaryIO, name: str) -> Iterator[Row]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _rows_of_text(text, name)
    finally:
        text.detach()  # it would close the file once more


def _rows_of_text(text: io.TextIOWrapper, name: str) -> Iterator[Row]:
    rows = csv.reader(text, strict=True)
    header = next(rows, None)
    if header is None:
        return
    if len(header) == 1 and is_image(header[0]):  # a list of paths that has no header
        yield header[0]
        column = 0
    else:
        column = _column(header)
    for row in rows:
        if row:
            yield row[column] if len(row) > column and row[column] else _without_path(name, rows.line_num, "line")


def _rows_of_parquet(file: BinaryIO, name: str) -> Iterator[Row]:
    table = needed("pyarrow.parquet", "Parquet").ParquetFile(file, pre_buffer=False)
    schema = table.schema_arrow
    column = schema.field(_column(schema.names))
    inner = [column.type.field(index).name for index in range(column.type.num_fields)]
    has_images = "bytes" in inner and "path" in inner  # as the data sets of Hugging Face hold them
    count = 0
    batches = table.iter_batches(batch_size=_ROWS_OF_IMAGES if has_images else _ROWS, columns=[column.name])
    for batch in batches:
        for value in batch.column(0).to_pylist():
            yield _embedded(value, name, count) if has_images else _row_of(value, name, count)
            count += 1


def _row_of(value: Any, name: str, number: int) -> Row:
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    return value if isinstance(value, str) and value else _without_path(name, number, "row")


def _embedded(value: Any, name: str, number: int) -> Row:
    """An image that stands in the table itself, named by its row."""
    if value is None or not value["bytes"]:
        return _row_of(value and value["path"], name, number)
    return Source(f"{name}/{number}", value["bytes"])


def _without_path(name: str, number: int, unit: str) -> Source:
    return failing(f"{name}/{unit} {number}", f"expected the path of an image in {unit} {number} of the table")


def _column(names: Sequence[str]) -> int:
    """Where the paths stand.

    Raises:
        ValueError: in none of the columns, or nobody can tell.
    """
    known = [name.strip().lower() for name in names]
    for column in COLUMNS:
        if column in known:
            return known.index(column)
    if len(names) == 1:
        return 0
    raise ValueError(f"expected a column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}, got {', '.join(map(repr, names))}")
