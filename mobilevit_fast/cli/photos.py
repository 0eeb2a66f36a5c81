"""Image files below the paths a user named."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mobilevit_fast.engine.sources import SUFFIXES
from mobilevit_fast.files import user_path


@dataclass(frozen=True)
class Photo:
    """An image file: its path as shown, and the names a table of labels may call it by."""

    path: Path
    names: tuple[str, ...]


class Problem(NamedTuple):
    """A path without any image, and why."""

    path: Path
    error: str


def collect(paths: list[Path]) -> tuple[list[Photo], list[Problem]]:
    """Every image file once, folders walked in the order of names, and what is wrong with each path without any."""
    photos: dict[Path, Photo] = {}
    problems: list[Problem] = []
    for path in map(user_path, paths):
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            problems.append(_problem(path, error))
            continue
        if is_folder:
            found, unreadable = _walk(path)
            problems += unreadable
            if not found and not unreadable:
                problems.append(Problem(path, f"expected a folder with images ({', '.join(SUFFIXES)}), found none"))
            for file in found:
                relative = file.relative_to(path).as_posix()
                photos.setdefault(file, Photo(file, (str(file), relative, file.name)))
        else:
            photos.setdefault(path, Photo(path, (str(path), path.name)))
    return list(photos.values()), problems


def _problem(path: Path, error: OSError) -> Problem:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return Problem(path, "no such file or folder" if missing else error.strerror or str(error))


def _walk(folder: Path) -> tuple[list[Path], list[Problem]]:
    """The image files below a folder, and the folders that cannot be read."""
    found: list[Path] = []
    problems: list[Problem] = []
    for parent, folders, files in os.walk(folder, onerror=lambda e: problems.append(_problem(Path(e.filename), e))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent) / name
            for name in sorted(files)
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return found, problems
