"""Image files below the paths a user named, and the labels that a table gives them."""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilevit_fast.files import user_path

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files of folders that count as images; a file that is named itself may have any suffix."""


@dataclass(frozen=True)
class Photo:
    """An image file: its path as shown, and the names a table of labels may call it by."""

    path: Path
    names: tuple[str, ...]


def collect(paths: list[Path]) -> tuple[list[Photo], list[str]]:
    """Every image file once, folders walked in the order of names, and a sentence for each path without any."""
    photos: dict[Path, Photo] = {}
    problems: list[str] = []
    for path in map(user_path, paths):
        if path.is_dir():
            found = _walk(path)
            if not found:
                problems.append(f"{path}: expected a folder with images ({', '.join(SUFFIXES)}), found none")
            for file in found:
                relative = file.relative_to(path).as_posix()
                photos.setdefault(file, Photo(file, (str(file), relative, file.name)))
        elif path.exists():
            photos.setdefault(path, Photo(path, (str(path), path.name)))
        else:
            problems.append(f"{path}: no such file or folder")
    return list(photos.values()), problems


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent) / name
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return found


class Labels:
    """The labels of images from a CSV file with the columns `image` and `label`.

    Args:
        path: of the file. `image` is a path as given on the command line, relative to a folder given there, or a bare
            file name; `label` is the index of a class or its name.
        id2label: names of the classes by index.

    Raises:
        ValueError: the file is no such table; the message names the line.
    """

    def __init__(self, path: Path, id2label: Mapping[int, str]) -> None:
        self._labels: dict[str, int] = {}
        try:
            with user_path(path).open(newline="", encoding="utf-8-sig") as file:
                self._read(csv.DictReader(file), path, id2label)
        except OSError as error:
            raise ValueError(f"{path}: expected a CSV file of labels, got: {error.strerror}") from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: expected a CSV table in UTF-8, got one that fails with: {error}") from error

    def _read(self, reader: "csv.DictReader[str]", path: Path, id2label: Mapping[int, str]) -> None:
        indices = {name: index for index, name in id2label.items()}
        columns = reader.fieldnames or []
        if "image" not in columns or "label" not in columns:
            raise ValueError(f"{path}: expected columns image and label, got {', '.join(columns) or 'an empty file'}")
        for row in reader:
            image, label = row["image"] or "", (row["label"] or "").strip()
            index = int(label) if label.isdecimal() else indices.get(label)
            if index is None or index not in id2label:
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected a label of the model's {len(id2label)} classes, "
                    f"got {label!r}"
                )
            if image in self._labels:
                raise ValueError(f"{path}, line {reader.line_num}: a second label for {image!r}")
            self._labels[image] = index

    def of(self, photo: Photo) -> int | None:
        """The label of an image, or None where the table has none."""
        return next((self._labels[name] for name in photo.names if name in self._labels), None)
