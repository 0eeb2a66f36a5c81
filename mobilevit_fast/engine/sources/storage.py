"""Files and folders by name, on the disk or at a URL: the other modules of sources see no difference.

A URL is whatever fsspec knows: `s3://bucket/photos`, also in a chain like `zip://photos::s3://bucket/photos.zip`.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from mobilevit_fast import limits
from mobilevit_fast.engine.optional import missing, needed
from mobilevit_fast.engine.sources.source import explained
from mobilevit_fast.images import ImageError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::.*://)", re.DOTALL)

_PACKAGES = ("adlfs", "aiohttp", "gcsfs", "paramiko", "requests", "s3fs")
"""Those that fsspec takes file systems from and that pip knows by the same name."""


class Entry(NamedTuple):
    """A file or folder of a folder; `name` is the last part of its path."""

    name: str
    is_folder: bool


def is_url(name: str) -> bool:
    """Whether a name is not a path of this machine."""
    return _URL.match(name) is not None


def read(name: str) -> bytes:
    """The content of a file.

    Raises:
        OSError, ImageError: there is none, or a larger one than `limits.MAX_IMAGE_BYTES`; in one line.
    """
    if is_url(name):
        with _one_kind_of_error():
            filesystem, path = _filesystem(name)
            content = filesystem.cat_file(path, end=limits.MAX_IMAGE_BYTES + 1)  # no more of a file that is too large
            whole = len(content) if len(content) <= limits.MAX_IMAGE_BYTES else filesystem.size(path)
        check_size(max(whole or 0, len(content)))  # not every server says how large a file is
        return content
    try:
        with open(name, "rb", buffering=0, opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("expected an image file, got a pipe, a device or the like")
            check_size(status.st_size)
            return file.readall()
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise _with_message(error) from error


def check_size(size: int) -> None:
    """Raise an ImageError for a file of more bytes than the limit."""
    if size > limits.MAX_IMAGE_BYTES:
        raise ImageError(f"expected an image of {limits.raised('MAX_IMAGE_BYTES')} bytes, got {size:,}")


def open_stream(name: str) -> BinaryIO:
    """A file, opened for reading from its beginning on.

    Raises:
        OSError: it cannot be opened, in one line.
        ImportError: a package is missing that the URL needs.
    """
    with _one_kind_of_error():
        if is_url(name):
            filesystem, path = _filesystem(name)
            return filesystem.open(path, "rb")
        return open(name, "rb")


def is_folder(name: str) -> bool:
    """Whether it is a folder and not a file.

    Raises:
        OSError: it is neither, or cannot be reached, in one line.
        ImportError: a package is missing that the URL needs.
    """
    with _one_kind_of_error():
        if is_url(name):
            filesystem, path = _filesystem(name)
            return filesystem.info(path)["type"] == "directory"
        return stat.S_ISDIR(os.stat(name).st_mode)


def exists(name: str) -> bool:
    """Whether there is anything of this name, on this machine."""
    return os.path.lexists(name) if "\0" not in name else False


def entries(folder: str) -> list[Entry]:
    """A folder's own files and folders, in the order of their names; links to folders count as files.

    Raises:
        OSError: it cannot be listed, in one line.
        ImportError: a package is missing that the URL needs.
    """
    with _one_kind_of_error():
        if is_url(folder):
            filesystem, path = _filesystem(folder)
            listed = [(one["name"].rstrip("/"), one) for one in filesystem.ls(path, detail=True)]
            found = [
                Entry(own.rpartition("/")[2], one["type"] == "directory")
                for own, one in listed
                if own.strip("/") != path.strip("/")  # object stores have empty objects in the place of folders
            ]
        else:
            with os.scandir(folder) as scanned:
                found = [Entry(one.name, one.is_dir(follow_symlinks=False)) for one in scanned]
    return sorted(found)


def join(folder: str, name: str) -> str:
    """The name of something within a folder; an absolute path and a URL are what they are."""
    if is_url(name) or os.path.isabs(name):
        return name
    if not is_url(folder):
        return os.path.join(folder, name)
    head, tail = _split_chain(folder)
    return head + ("" if head.endswith("/") else "/") + name.lstrip("/") + tail


def parent(name: str) -> str:
    """The folder of a file; empty for the working directory."""
    if not is_url(name):
        return os.path.dirname(name)
    head, tail = _split_chain(name)
    scheme, _, path = head.partition("://")
    root = "/" if path.startswith("/") else ""
    return f"{scheme}://{path.rpartition('/')[0] or root}{tail}"


def path_of(name: str) -> str:
    """The part of a name that is a path: of a URL without the rest of a chain."""
    return _split_chain(name)[0] if is_url(name) else name


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """Beginning of a path or URL, before its first part, and its parts. A chain has no parts beyond its first."""
    if not is_url(pattern):
        root = "/" if pattern.startswith("/") else ""
        return root, [part for part in pattern.split("/") if part]
    head, tail = _split_chain(pattern)
    scheme, _, path = head.partition("://")
    return f"{scheme}://{'/' if path.startswith('/') else ''}{tail}", [part for part in path.split("/") if part]


def _split_chain(url: str) -> tuple[str, str]:
    """A URL up to the end of its first path, and the rest of its chain."""
    start = url.index("://")
    end = url.find("::", start)
    return (url, "") if end < 0 else (url[:end], url[end:])


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    try:
        return needed("fsspec.core", "URLs").url_to_fs(url)
    except ImportError as error:  # fsspec names the package in many ways, none of which is a command
        package = getattr(error.__cause__, "name", None)
        if package not in _PACKAGES:
            raise
        raise missing(package, f"{url.partition(':')[0]}:// URLs") from error


def _open_without_waiting(path: str, flags: int) -> int:
    """As `os.open`; of a pipe it does not wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """OSErrors in place of all kinds that file systems raise, those of fsspec among them: botocore's, aiohttp's, …"""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        raise _with_message(error) from error


def _with_message(error: Exception) -> OSError:
    return OSError(explained(error))
