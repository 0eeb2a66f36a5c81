"""The true classes of images, from a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mobilevit_fast.cli.photos import Photo
from mobilevit_fast.files import user_path
from mobilevit_fast.limits import shortened

_LONGEST_INDEX = 18  # digits
_LONGEST_HEADER = 200  # characters of a message


class _Row(NamedTuple):
    """A label as the table has it: the class of this name, and the one of this index, where there is such a class."""

    line: int
    text: str
    by_name: int | None
    by_index: int | None


class Labels:
    """The labels of images from a CSV file with the columns `image` and `label`.

    Where all labels of the table are names of classes, names are meant, also names that are numbers; else a label is
    a name or an index, and one that could be both of different classes is refused.

    Args:
        path: of the file. `image` is a path as given on the command line, relative to a folder given there, or a bare
            file name, with or without `./` before it; `label` is the index of a class or its name.
        id2label: names of the classes by index.
        photos: the images, of which no two may be meant by the same row, and none by rows of different classes.

    Raises:
        ValueError: the file is no such table, or ambiguous; the message names the line.
    """

    def __init__(self, path: Path, id2label: Mapping[int, str], photos: Sequence[Photo]) -> None:
        self._path = path
        try:
            with user_path(path).open(newline="", encoding="utf-8-sig") as file:
                rows = self._read(csv.DictReader(file), id2label)
        except OSError as error:
            raise ValueError(f"{path}: expected a CSV file of labels, got: {error.strerror}") from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: expected a CSV table in UTF-8, got one that fails with: {error}") from error
        self._labels = self._classes(rows)
        self._check_images(rows, photos)

    def of(self, photo: Photo) -> int | None:
        """The label of an image, or None where the table has none."""
        return next((self._labels[name] for name in photo.names if name in self._labels), None)

    def _read(self, reader: "csv.DictReader[str]", id2label: Mapping[int, str]) -> dict[str, _Row]:
        names: dict[str, int | None] = {}
        for index, name in id2label.items():
            names[name.strip()] = index if name.strip() not in names else None  # two classes of a name have none
        columns = reader.fieldnames or []
        if columns.count("image") != 1 or columns.count("label") != 1:
            found = " ".join(", ".join(columns).split()) or "an empty file"
            raise self._error(f"expected columns image and label, got {found[:_LONGEST_HEADER]}")
        rows: dict[str, _Row] = {}
        for values in reader:
            image, label = str(Path(values["image"] or "")), (values["label"] or "").strip()
            number = int(label) if label.isdecimal() and len(label) <= _LONGEST_INDEX else None
            row = _Row(reader.line_num, label, names.get(label), number if number in id2label else None)
            if row.by_name is None and row.by_index is None:
                raise self._error(
                    f"expected a label of the model's {len(id2label)} classes, got {shortened(label)}", row.line
                )
            if image in rows:
                raise self._error(f"a second label for {shortened(image)}", row.line)
            rows[image] = row
        return rows

    def _classes(self, rows: Mapping[str, _Row]) -> dict[str, int]:
        all_names = all(row.by_name is not None for row in rows.values())
        classes: dict[str, int] = {}
        for image, row in rows.items():
            found = {index for index in (row.by_name, row.by_index) if index is not None}
            if row.by_name is not None and all_names:
                found = {row.by_name}
            if len(found) > 1:
                raise self._error(
                    f"expected one class, got {row.text!r}, which is the name of class {row.by_name} and the index of "
                    "another, in a table of names and indices",
                    row.line,
                )
            classes[image] = found.pop()
        return classes

    def _check_images(self, rows: Mapping[str, _Row], photos: Sequence[Photo]) -> None:
        meant: dict[str, Photo] = {}
        for photo in photos:
            name = next((name for name in photo.names if name in rows), None)
            if name is not None and meant.setdefault(name, photo) is not photo:
                raise self._error(
                    f"expected the name of one image, got {shortened(name)}, which is that of {meant[name].path} and "
                    f"of {photo.path}",
                    rows[name].line,
                )
        for photo in photos:
            names = [name for name in photo.names if name in rows and meant.get(name, photo) is photo]
            for name in names[1:]:
                if self._labels[name] != self._labels[names[0]]:
                    found = " and ".join(
                        f"{shortened(rows[one].text)} for {shortened(one)}" for one in (names[0], name)
                    )
                    raise self._error(f"expected one class of {photo.path}, got {found}", rows[name].line)

    def _error(self, message: str, line: int | None = None) -> ValueError:
        return ValueError(f"{self._path}{'' if line is None else f', line {line}'}: {message}")
