"""Images on the disk and what a call of `iterate` makes of them."""

import io
import tarfile
from pathlib import Path
from typing import Any

from mobilevit_fast.engine.sources import iterate
from mobilevit_fast.images import ImageError


def put(folder: Path, *names: str) -> list[str]:
    """Files whose content is their name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return [str(folder / name) for name in names]


def answers(sources: Any, **options: Any) -> dict[str, Any]:
    """The content of each source, or the message of its error, by names in their order."""
    found = {}
    for source in iterate(sources, **options):
        assert source.name not in found
        try:
            found[source.name] = source.read()
        except (OSError, ImageError) as error:
            found[source.name] = str(error)
        assert not isinstance(found[source.name], str) or "\n" not in found[source.name]
    return found


def names(sources: Any, **options: Any) -> list[str]:
    return [source.name for source in iterate(sources, **options)]


def tar_of(members: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return file.getvalue()
