"""The formats of a part: rows into bytes, and back row by row."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilevit_fast.engine.optional import needed
from mobilevit_fast.engine.results.rows import LISTS, MASK, VECTORS, Row


class Format(Protocol):
    """How the rows of a part stand in a file."""

    holds_masks: bool
    """Whether a mask is the content of its PNG, and not the path of the file that has it."""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The content of a part."""

    def rows(self, path: Path) -> Iterator[Row]:
        """Every row of a part."""

    def outcomes(self, path: Path) -> Iterator[tuple[str, bool]]:
        """The source of each row and whether it has an error, without the rest."""


@contextmanager
def damage_named(part: Path) -> Iterator[None]:
    """Whatever a reader finds wrong with a part is a ValueError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # of three readers
        raise ValueError(f"{part}: expected a part of results, got a damaged file") from error


class Jsonl:
    """A JSON object a line, in ASCII."""

    holds_masks = False
    _START = '{"source": '
    _THEN = ', "error": '

    def __init__(self, outputs: Sequence[str], top_k: int) -> None:
        pass

    def encode(self, rows: Sequence[Row]) -> bytes:
        lines = (json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode("ascii")

    def rows(self, path: Path) -> Iterator[Row]:
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                for name in VECTORS:
                    if row.get(name) is not None:
                        row[name] = np.array(row[name], np.float32)  # None becomes NaN
                yield row

    def outcomes(self, path: Path) -> Iterator[tuple[str, bool]]:
        decode = json.JSONDecoder().raw_decode
        with path.open(encoding="utf-8") as file:
            for line in file:
                if not (line.startswith(self._START) and line.endswith("}\n")):  # rewritten, or cut off
                    row = json.loads(line)
                    yield row["source"], row["error"] is not None
                    continue
                source, end = decode(line, len(self._START))
                yield source, not line.startswith(f"{self._THEN}null", end)


class Csv:
    """Comma-separated values in UTF-8; of lists a column for each class: `label_1`, `score_1`, `label_2`, …"""

    holds_masks = False
    _COLUMN = re.compile(rf"({'|'.join(LISTS)})_(\d+)")
    _TYPES: dict[str, Any] = {"label": str, "index": int, "score": float}  # noqa: RUF012

    def __init__(self, outputs: Sequence[str], top_k: int) -> None:
        vectors = [name for name in outputs if name in VECTORS]
        if vectors:
            raise ValueError(f"expected the format parquet or jsonl for {' and '.join(vectors)}, got csv")
        self._lists = [name for name in outputs if name in LISTS]
        self._top_k = top_k
        self._mask = [MASK] if MASK in outputs else []

    def encode(self, rows: Sequence[Row]) -> bytes:
        file = io.StringIO(newline="")
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        lists = [f"{name}_{number + 1}" for number in range(self._top_k) for name in self._lists]
        writer.writerow(["source", "error", *lists, *self._mask])
        for row in rows:
            values = [row["source"], row["error"]]
            for number in range(self._top_k):
                values += [_at(row[name], number) for name in self._lists]
            writer.writerow([*values, *(row[name] for name in self._mask)])
        return file.getvalue().encode("utf-8")

    def rows(self, path: Path) -> Iterator[Row]:
        for found in self._dictionaries(path):
            row: Row = {}
            for name, text in found.items():
                match = self._COLUMN.fullmatch(name)
                if match is None:
                    row[name] = text if name == "source" else text or None
                    continue
                row.setdefault(match[1], []).append(self._TYPES[match[1]](text) if text else None)
            yield {name: self._cut(value) if isinstance(value, list) else value for name, value in row.items()}

    def outcomes(self, path: Path) -> Iterator[tuple[str, bool]]:
        for row in self._dictionaries(path):
            yield row["source"], row["error"] != ""

    @staticmethod
    def _cut(values: list[Any]) -> list[Any] | None:
        """Without the classes that there are fewer than columns of."""
        while values and values[-1] is None:
            values.pop()
        return values or None

    @staticmethod
    def _dictionaries(path: Path) -> Iterator[dict[str, str]]:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file, strict=True)


def answer_fields(outputs: Sequence[str]) -> list[Any]:
    """Fields of Arrow for the error and the outputs of a row."""
    arrow = needed("pyarrow", "Parquet")
    kinds = {
        "error": arrow.string(),
        "label": arrow.list_(arrow.string()),
        "index": arrow.list_(arrow.int32()),
        "score": arrow.list_(arrow.float32()),
        **{name: arrow.list_(arrow.float32()) for name in VECTORS},
        MASK: arrow.binary(),
    }
    return [arrow.field(name, kinds[name]) for name in ("error", *outputs)]


class Parquet:
    """Parquet with lists of float32; masks are PNGs in it."""

    holds_masks = True
    _ROWS = 256  # read at a time

    def __init__(self, outputs: Sequence[str], top_k: int) -> None:
        self._arrow = needed("pyarrow", "Parquet")
        self._parquet = needed("pyarrow.parquet", "Parquet")
        self._schema = self._arrow.schema([("source", self._arrow.string()), *answer_fields(outputs)])

    def encode(self, rows: Sequence[Row]) -> bytes:
        columns = [self._arrow.array([row[one.name] for row in rows], one.type) for one in self._schema]
        file = io.BytesIO()
        self._parquet.write_table(self._arrow.table(columns, schema=self._schema), file, compression="zstd")
        return file.getvalue()

    def rows(self, path: Path) -> Iterator[Row]:
        for batch in self._batches(path, None):
            vectors = {name: batch.column(name) for name in VECTORS if name in batch.schema.names}
            others = [name for name in batch.schema.names if name not in vectors]
            for number, row in enumerate(batch.select(others).to_pylist()):
                for name, column in vectors.items():
                    value = column[number]
                    row[name] = value.values.to_numpy(zero_copy_only=False) if value.is_valid else None
                yield {name: row[name] for name in batch.schema.names}

    def outcomes(self, path: Path) -> Iterator[tuple[str, bool]]:
        for batch in self._batches(path, ["source", "error"]):
            errors = batch.column("error").is_valid().to_pylist()
            yield from zip(batch.column("source").to_pylist(), errors, strict=True)

    def _batches(self, path: Path, columns: list[str] | None) -> Iterator[Any]:
        with self._parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=self._ROWS, columns=columns)


FORMATS: dict[str, type[Jsonl] | type[Csv] | type[Parquet]] = {"parquet": Parquet, "jsonl": Jsonl, "csv": Csv}
"""By their names, which are also the suffixes of their files."""


def format_of(name: str, outputs: Sequence[str], top_k: int) -> Format:
    """A format by its name.

    Raises:
        ValueError: there is none of this name, or it cannot hold the outputs.
        ImportError: a package is missing.
    """
    if name not in FORMATS:
        raise ValueError(f"expected the format parquet, jsonl or csv, got {name!r}")
    return FORMATS[name](outputs, top_k)


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN."""
    if not isinstance(value, np.ndarray):
        return value
    values = value.tolist()
    return values if np.isfinite(value).all() else [one if np.isfinite(one) else None for one in values]


def _at(values: list[Any] | None, number: int) -> Any:
    return values[number] if values is not None and number < len(values) else None
