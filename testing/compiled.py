"""Objects and programs of tests, compiled once for a state of their sources and kept in ``build/`` until it changes.

What decides is a digest of the command, of the compiler's version and of all that was included, headers of the system
among it; not of times. A later run that finds the folder compiles nothing.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from testing.paths import REPOSITORY

_READ_BY_COMPILERS = ("CPATH", "CPLUS_INCLUDE_PATH", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "NVCC_CCBIN")
FOLDER = REPOSITORY / "build" / "tests"


class Compiled(NamedTuple):
    """Object or program, and what the compiler wrote on its way there."""

    path: Path
    report: str


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and wait until no other process is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_once(command: Sequence[str], source: Path, folder: Path) -> Compiled:
    """The object of a source.

    Args:
        command: compiler and flags, without the source and where its object goes.
        source: a file.
        folder: where the object is kept; of processes that compile the same at once, one does it for nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = [f"{name}={os.environ.get(name, '')}" for name in _READ_BY_COMPILERS]
    stem = f"{source.name}-{_digest([*command, str(source), *settings, _version(command[0])])}"
    included = folder / f"{stem}.d"
    found = _kept(folder, stem, _files_of(included))
    if found is None:
        made, names = folder / f"{stem}-{os.getpid()}.new", folder / f"{stem}-{os.getpid()}.names"
        began = time.time()
        report = _call([*command, "-MD", "-MF", str(names), "-c", str(source), "-o", str(made)])
        names.replace(included)
        files = _files_of(included)
        assert files is not None, included
        found = _keep(folder, stem, files, made, report)
        if any(file.stat().st_mtime >= began - 1 for file in files):
            included.unlink(missing_ok=True)  # written meanwhile: what was compiled may have another digest
    return found


def link_once(
    command: Sequence[str], objects: Iterable[Path], name: str, folder: Path, after: Sequence[str] = ()
) -> Path:
    """A program or library of objects of ``compile_once``, whose names say what they are."""
    parts = list(map(str, objects))
    target = folder / f"{_digest([*command, *parts, *after])}-{name}"
    if not target.exists():
        for old in folder.glob(f"*-{name}"):
            old.unlink()
        made = folder / f"{name}-{os.getpid()}.new"
        _call([*command, *parts, *after, "-o", str(made)])
        made.replace(target)
    return target


def _files_of(included: Path) -> list[Path] | None:
    """Files that a compiler said it read, or None where that is not known."""
    if not included.exists():
        return None
    _, _, names = included.read_text().partition(":")
    paths = [Path(name) for name in names.replace("\\\n", " ").split()]
    return paths if all(path.exists() for path in paths) else None


def _kept(folder: Path, stem: str, files: list[Path] | None) -> Compiled | None:
    if files is None:
        return None
    target = _target(folder, stem, files)
    report = target.with_suffix(".txt")
    return Compiled(target, report.read_text()) if target.exists() and report.exists() else None


def _keep(folder: Path, stem: str, files: list[Path], made: Path, report: str) -> Compiled:
    target = _target(folder, stem, files)
    for old in folder.glob(f"{stem}-*.o"):
        old.unlink(missing_ok=True)
        old.with_suffix(".txt").unlink(missing_ok=True)
    target.with_suffix(".txt").write_text(report)
    made.replace(target)
    return Compiled(target, report)


def _target(folder: Path, stem: str, files: Iterable[Path]) -> Path:
    content = hashlib.sha256(b"".join(map(_content, files))).hexdigest()[:16]
    return folder / f"{stem}-{content}.o"


@functools.cache
def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@functools.cache
def _version(compiler: str) -> str:
    return _call([compiler, "--version"])


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _call(command: Sequence[str]) -> str:
    """Output of a compiler. The sanitizers' library, which nvcc does not stand, is meant for the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-6000:]
    return result.stdout + result.stderr
