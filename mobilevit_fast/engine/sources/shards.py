"""Images in tar files of the layout of webdataset, in the order in which they stand there."""

import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mobilevit_fast.engine.sources import storage
from mobilevit_fast.engine.sources.source import Source, failing
from mobilevit_fast.engine.sources.walking import is_image
from mobilevit_fast.images import ImageError

SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_ERRORS = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, lzma.LZMAError)


class _Header(tarfile.TarInfo):
    """A member's header. One that is damaged is an error anywhere, which tarfile takes for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise tarfile.ReadError("it is damaged or was cut off") from error


@dataclass(slots=True, eq=False)
class Member:
    """An image of a tar file that can be read before the next one is asked for, and not later.

    Attributes:
        name: of the tar file and of the member.
        damage: why the archive ended within it.
    """

    name: str
    archive: tarfile.TarFile
    header: tarfile.TarInfo
    damage: Exception | None = None

    def load(self) -> Source | None:
        """The image with its content; None where the archive is cut off, which it says itself."""
        if not self.header.isreg():
            return failing(self.name, "expected an image file, got a link or a device in a tar file")
        try:
            storage.check_size(self.header.size)
        except ImageError as error:
            return failing(self.name, error)
        try:
            file: Any = self.archive.extractfile(self.header)
            return Source(self.name, file.read())
        except _ERRORS as error:
            self.damage = error
            return None


def is_shard(name: str) -> bool:
    """Whether the suffix is that of a tar file."""
    return storage.path_of(name).lower().endswith(SHARDS)


def members(name: str) -> Iterator[Member | Source]:
    """The images of a tar file. One that is damaged ends in a source that says so, after those before the damage."""
    found = False
    try:
        with storage.open_stream(name) as file, _opened(file, name) as archive:
            while (header := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all of them
                path = posixpath.normpath(header.name)
                if header.isdir() or not is_image(path) or any(part.startswith(".") for part in path.split("/")):
                    continue
                found = True
                member = Member(f"{name}/{path.lstrip('/')}", archive, header)
                yield member
                if member.damage is not None:
                    raise member.damage
    except ImportError:
        raise
    except _ERRORS as error:
        yield failing(name, f"expected a whole tar file, got one that fails with: {_one_line(error)}")
        return
    if not found:
        yield failing(name, "expected a tar file with images, found none")


def _opened(file: Any, name: str) -> tarfile.TarFile:
    """The archive; that of a plain file on this machine passes over what is not read, any other is a stream."""
    is_plain = not storage.is_url(name) and name.lower().endswith(SHARDS[0])
    return tarfile.open(fileobj=file, mode="r:" if is_plain else "r|*", tarinfo=_Header)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
