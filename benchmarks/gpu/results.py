"""Files of results that are complete after every row, whoever is killed when."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mobilevit_fast.files import write_atomically

LARGEST = 16_000_000
"""Bytes of a file: results are to be committed, and carried away from machines that only let go of small ones."""


def without_row(keys: Iterable[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those of ``keys``, fields that tell a row from all others, that no row has."""
    return (key for key in keys if not any(key.items() <= row.items() for row in rows))


class Results:
    """Rows in a JSON file.

    Every change reads the file and replaces it as a whole, so that several processes can add to it one after the other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, head: dict[str, Any]) -> None:
        """Begin anew; ``head`` is what holds for all rows."""
        self._write({**head, "running": None, "rows": []})

    def load(self) -> dict[str, Any]:
        """Everything."""
        content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return content

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows so far."""
        return list(self.load()["rows"])

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self.extend([row])

    def extend(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows at once, with the few facts of the machine that a row should not be without."""
        content, size = self.load(), self.path.stat().st_size
        for row in rows:
            row = {**row, **content.get("stamp", {})}
            size += len(json.dumps(row))
            if size > LARGEST:
                row = {name: value for name, value in row.items() if len(str(value)) < 200}
                row["reason"] = f"not whole: the file would be larger than {LARGEST // 10**6} MB"
            content["rows"].append(row)
        self._write(content)

    def update(self, **values: Any) -> None:
        """Set facts of the whole file."""
        self._write({**self.load(), **values})

    def _write(self, content: dict[str, Any]) -> None:
        rows = ",\n  ".join(json.dumps(row) for row in content["rows"])
        head = {name: value for name, value in content.items() if name != "rows"}
        text = f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, text.encode())
