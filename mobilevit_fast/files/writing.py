"""Writing files that are whole or not there, and that belong together, whenever their writer is killed."""

import errno
import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

from mobilevit_fast.files.locks import lock, unlock

_JOURNAL = ".mobilevit_fast.journal"
"""Lists the temporary files of a save: what is written, what its place held before, and the name of that.

Rivals of the save follow, of which nothing is written.
"""
_MAX_JOURNAL_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\.(?P<name>[^/\\\0]+)\.[0-9a-f]+\.tmp")
_ENTRY = re.compile(
    r"(?P<path>\.[^/\\\0]+\.[0-9a-f]+\.tmp|)/(?P<old>[a-z0-9]+)/(?P<name>(?!\.{1,2}\Z)[^/\\\0]+)",
)
_ABSENT = "absent"
_LONGEST_NAME = 100
"""Bytes of a file's name that stand in the temporary one, which else would be too long where the former just fits."""


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as its user means it: `~` is the home folder. What names no home stays as it is."""
    return Path(os.path.expanduser(os.fspath(path)))


def write_atomically(path: Path, content: bytes) -> None:
    """Write one file of a folder that exists, as `write_together` does; what is no file, such as a pipe, in place."""
    if _is_device(path):
        with path.open("ab") as file:
            file.write(content)
        return
    write_together(path.parent, {path.name: content})


def _is_device(path: Path) -> bool:
    """Whether a path is a pipe, a terminal or the like, which a renamed file must not take the place of."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    is_other = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return is_other or os.path.realpath(path.parent) == "/dev"  # where links lead to what the process has open


def write_together(folder: Path, contents: Mapping[str, bytes], rivals: Iterable[str] = ()) -> None:
    """Write files that belong together: all of them or none, whenever this is killed.

    All of them are written under names of their own beside their places and are on the disk before the first takes its
    place, and so is a journal that lists those names. Removing the old one of the first file, or the journal itself
    where there is none, commits the save: from there on `find` gives the new files, in their places or not, and whoever
    writes to the folder next with this function puts the rest into their places, the first file last. Programs that
    know nothing of the journal may find the first file missing, for a moment or, after a kill, until the next save;
    wherever they find it, all others are of the same save. What they write counts from then on: in the place of the
    first file or of a rival, instead of all that is not in its place yet; in that of another one, instead of this one.

    What is there already with the same content is not touched, and a single file that changes is renamed over the old
    one: then none is ever missing. Several writers of one folder, threads or processes, take turns in that, so that the
    files of one never mix with those of another. What killed writers left is removed.

    Args:
        folder: which exists.
        contents: by name; first what is of no use without the others, or tells most.
        rivals: names of files that readers take instead of the first one where that is missing. They count in a save
            that changes it.

    Raises:
        OSError: as when writing in place; every file is what it was, unless the failure was that of a rename after the
            first old file was removed, when the save is committed like that of a killed writer.
    """
    for name in contents:
        if (folder / name).is_dir():
            raise IsADirectoryError(f"expected a file to write to, got a folder: {folder / name}")
    with _alone_in(folder):
        _finish(folder, _committed(folder))
        remove_leftovers(folder, {_beginning(name) for name in (*contents, _JOURNAL)}.__contains__)
    with ExitStack() as stack:
        written = {name: stack.enter_context(_written(folder, name, contents[name])) for name in contents}
        with _alone_in(folder):
            _finish(folder, _committed(folder))
            changed = {name: path for name, path in written.items() if not _holds(folder / name, contents[name])}
            if len(changed) > 1:
                _commit(folder, changed, set(rivals) - contents.keys() if next(iter(contents)) in changed else ())
            _finish(folder, changed)
        sync_folder(folder)


def find(path: Path) -> Path | None:
    """Where the content of a file lies: in its place, or where a killed writer of `write_together` left it.

    None where it is nowhere. Writers at work may move it meanwhile: a file that was found may have to be found again.
    """
    while True:
        committed = _committed(path.parent)
        found = committed.get(path.name, path)
        if found.is_file():
            return found
        if _committed(path.parent) == committed and not found.is_file():
            return None


def open_found(path: Path) -> io.BufferedReader:
    """Open a file for reading where it lies."""
    while (found := find(path)) is not None:
        with suppress(FileNotFoundError):  # it was moved meanwhile
            return found.open("rb")
    return path.open("rb")  # which fails in the system's words


def remove_leftovers(folder: Path, belongs: Callable[[str], bool]) -> None:
    """Remove what killed writers left in a folder, of files whose names belong to the caller.

    Args:
        folder: which exists.
        belongs: told the name of a file, of a long one the first 100 bytes.
    """
    with suppress(OSError):
        for found in os.listdir(folder):
            match = _TEMPORARY.fullmatch(found)
            if match is None or not belongs(match["name"]):
                continue
            with suppress(OSError):
                descriptor = os.open(folder / found, os.O_RDWR)
                try:
                    if lock(descriptor, wait=False):
                        os.unlink(folder / found)
                finally:
                    os.close(descriptor)


def encoded_picture(picture: "Image.Image", kind: str) -> bytes:
    """The content of an image file, by the name Pillow has for its format."""
    file = io.BytesIO()
    picture.save(file, format=kind)
    return file.getvalue()


def _commit(folder: Path, changed: Mapping[str, Path], rivals: Iterable[str]) -> None:
    """Have `find` give these temporary files from now on, whatever happens."""
    first = next(iter(changed))
    old = {name: _ABSENT if name == first else _digest(folder / name) for name in changed}
    entries = [f"{path.name}/{old[name]}/{name}" for name, path in changed.items()]
    entries += [f"/{_digest(folder / name)}/{name}" for name in rivals]
    with _written(folder, _JOURNAL, os.fsencode("\0".join(entries))) as journal:
        os.replace(journal, folder / _JOURNAL)
        try:
            sync_folder(folder)
            (folder / first).unlink(missing_ok=True)
        except BaseException:
            if not _committed(folder):
                (folder / _JOURNAL).unlink()
            raise


def _committed(folder: Path) -> dict[str, Path]:
    """Temporary files of a committed save by the names whose places they have not taken yet, the first one first.

    A journal counts while the place of the first file that it lists is empty: else the old one was not removed yet, all
    is in place, or somebody else wrote there since. So it does while the places of its rivals are empty or hold what
    they held, and an entry while its own place does; by the content, since copies of a folder have other inodes, and
    many file systems when mounted again.

    Raises:
        OSError: nobody can tell what there is. It must not pass for nothing, since that would be removed.
    """
    try:
        with (folder / _JOURNAL).open("rb") as file:
            entries = os.fsdecode(file.read(_MAX_JOURNAL_BYTES)).split("\0")
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a path that no file can have
        return {}
    listed = {entry["name"]: entry for entry in map(_ENTRY.fullmatch, entries) if entry}
    written = {name: folder / entry["path"] for name, entry in listed.items() if entry["path"]}
    first = next(iter(written), None)
    if first is None or not _is_there(written[first]) or _is_there(folder / first):
        return {}
    kept = {name for name, entry in listed.items() if _digest(folder / name) in (_ABSENT, entry["old"])}
    if not listed.keys() - written.keys() <= kept:
        return {}
    return {name: path for name, path in written.items() if name in kept and _is_there(path)}


def _digest(path: Path) -> str:
    """Digest that tells whether a place still holds what it held."""
    try:
        if not path.is_file():
            return "other" if _is_there(path) else _ABSENT
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:  # by now
        return _ABSENT
    except PermissionError:  # of a file that can be replaced and not read
        return "unreadable"


def _is_there(path: Path) -> bool:
    """Whether there is anything of this name; where that cannot be told, the error."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise
    return True


def _finish(folder: Path, committed: Mapping[str, Path]) -> None:
    """Have files of a committed save, or a single one, take their places."""
    for name in reversed([*committed]):
        os.replace(committed[name], folder / name)
    (folder / _JOURNAL).unlink(missing_ok=True)


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file is there with this content."""
    try:
        return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


@contextmanager
def _written(folder: Path, name: str, content: bytes) -> Iterator[Path]:
    """A temporary file with this content, on the disk; locked, which says that its writer lives, and removed after."""
    path, descriptor = _create(folder, name)
    try:
        path.write_bytes(content)
        os.fsync(descriptor)
        yield path
    finally:
        try:
            if path not in _committed(folder).values():
                path.unlink(missing_ok=True)
        finally:
            unlock(descriptor)
            os.close(descriptor)


def _create(folder: Path, name: str) -> tuple[Path, int]:
    while True:
        path = folder / f".{_beginning(name)}.{secrets.token_hex(8)}.tmp"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)  # less what the umask takes
        if lock(descriptor, wait=False) is not False and path.exists():
            return path, descriptor
        os.close(descriptor)  # another writer took it for a leftover before it was locked


def _beginning(name: str) -> str:
    """As much of a file's name as stands in a temporary one."""
    short = name[:_LONGEST_NAME]
    while len(os.fsencode(short)) > _LONGEST_NAME:
        short = short[:-1]
    return short


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other writers from renaming in a folder meanwhile."""
    descriptor = _open_folder(folder)
    try:
        if descriptor is not None:
            lock(descriptor, wait=True)
        yield
    finally:
        if descriptor is not None:
            unlock(descriptor)
            os.close(descriptor)


def _open_folder(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY)
    except PermissionError:  # of a folder that can be written and not listed, or on Windows
        return None


def sync_folder(folder: Path) -> None:
    """Have the disk know the new names too, where the file system can."""
    descriptor = _open_folder(folder)
    if descriptor is not None:
        try:
            with suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
