"""Writing files that are whole or not there, and that a killed writer leaves as they were."""

import io
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

try:
    import fcntl
except ImportError:  # not on POSIX: then writers do not see each other, and leftovers stay
    fcntl = None  # type: ignore[assignment]


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as its user means it: `~` is the home folder. What names no home stays as it is."""
    return Path(os.path.expanduser(os.fspath(path)))


def write_atomically(path: Path, content: bytes) -> None:
    """Write one file of a folder that exists, as `write_together` does."""
    write_together(path.parent, {path.name: content})


def write_together(folder: Path, contents: Mapping[str, bytes], description: str | None = None) -> None:
    """Write files that belong together; whenever this is killed, nobody finds a part of one.

    All of them are written under names of their own beside their places and are on the disk before the first takes
    its place. Several writers of one folder, threads or processes, do that one after the other, so that the files of
    one never mix with those of another. What killed writers left is removed.

    Args:
        folder: which exists.
        contents: by name, in the order in which they take their places.
        description: the name of a file that says how to read the others. Where it changes, the old one is put aside
            before the others take their places, and the new one takes its own last: an old description with new
            contents is never there.

    Raises:
        OSError: as when writing in place; every file is what it was, unless the failure was that of a rename.
    """
    for name in contents:
        if (folder / name).is_dir():
            raise IsADirectoryError(f"expected a file to write to, got a folder: {folder / name}")
    with _alone_in(folder):
        _remove_leftovers(folder, contents)
    with ExitStack() as stack:
        temporaries = {name: stack.enter_context(_written(folder, name, contents[name])) for name in contents}
        names = sorted(contents, key=lambda name: name == description)  # stable: the description comes last
        with _alone_in(folder):
            aside = _put_aside(folder, description, contents) if description is not None else None
            try:
                for name in names:
                    os.replace(temporaries[name], folder / name)
            except BaseException:
                # Beside contents that are new already, an old description would be worse than none.
                if aside is not None and temporaries[names[0]].exists():
                    os.replace(aside, folder / str(description))
                raise
            if aside is not None:
                aside.unlink(missing_ok=True)
        _sync(folder)


def encoded_picture(picture: "Image.Image", kind: str) -> bytes:
    """The content of an image file, by the name Pillow has for its format."""
    file = io.BytesIO()
    picture.save(file, format=kind)
    return file.getvalue()


def _temporary_name(name: str) -> str:
    return f".{name}.{secrets.token_hex(8)}.tmp"


@contextmanager
def _written(folder: Path, name: str, content: bytes) -> Iterator[Path]:
    """A temporary file with this content, on the disk; locked, which says that its writer lives, and removed after."""
    path, descriptor = _create(folder, name)
    try:
        path.write_bytes(content)
        os.fsync(descriptor)
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _create(folder: Path, name: str) -> tuple[Path, int]:
    while True:
        path = folder / _temporary_name(name)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)  # less what the umask takes
        if _lock(descriptor, wait=False) is not False and path.exists():
            return path, descriptor
        os.close(descriptor)  # another writer took it for a leftover before it was locked


def _lock(descriptor: int, *, wait: bool) -> bool | None:
    """Whether the lock was taken; None where there are none. It ends with the descriptor, or with the process."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other writers from renaming in a folder meanwhile."""
    descriptor = _open_folder(folder)
    try:
        if descriptor is not None:
            _lock(descriptor, wait=True)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_folder(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY)
    except PermissionError:  # of a folder that can be written and not listed, or on Windows
        return None


def _remove_leftovers(folder: Path, names: Mapping[str, bytes]) -> None:
    """Remove temporary files of these names that no writer holds any more."""
    pattern = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.[0-9a-f]+\.tmp")
    with suppress(OSError):
        for found in [entry for entry in os.listdir(folder) if pattern.fullmatch(entry)]:
            with suppress(OSError):
                descriptor = os.open(folder / found, os.O_RDWR)
                try:
                    if _lock(descriptor, wait=False):
                        os.unlink(folder / found)
                finally:
                    os.close(descriptor)


def _put_aside(folder: Path, description: str, contents: Mapping[str, bytes]) -> Path | None:
    """Rename the description that is there if it is another one and does not stand alone; its new name, or None."""
    try:
        if len(contents) == 1 or (folder / description).read_bytes() == contents[description]:
            return None
    except FileNotFoundError:
        return None
    aside = folder / _temporary_name(description)
    os.replace(folder / description, aside)
    return aside


def _sync(folder: Path) -> None:
    """Have the disk know the new names too, where the file system can."""
    descriptor = _open_folder(folder)
    if descriptor is not None:
        try:
            with suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
