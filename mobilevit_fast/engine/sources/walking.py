"""Files below a folder, and those that match a pattern: in the order of names, one folder listed at a time."""

import fnmatch
import os
import re
from collections.abc import Iterator

from mobilevit_fast.engine.results.manifest import MANIFEST, MASKS
from mobilevit_fast.engine.sources import storage
from mobilevit_fast.engine.sources.source import Source, failing

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files of folders that count as images; a file that is named itself may have any suffix."""

_MAGIC = re.compile(r"[*?\[]")
_ANY_DEPTH = "**"


def is_image(name: str) -> bool:
    """Whether the suffix is that of an image."""
    return suffix(name) in SUFFIXES


def suffix(name: str) -> str:
    """The suffix of a path, in small letters."""
    return os.path.splitext(storage.path_of(name))[1].lower()


def walk(folder: str) -> Iterator[str | Source]:
    """The image files below a folder; in the place of a folder that cannot be listed, a source that says why.

    Hidden files and folders are left out, and links to folders, which could lead back to where they are.
    """
    found = False
    stack = [iter([(folder, True)])]
    while stack:
        name, is_folder = next(stack[-1], ("", None))
        if is_folder is None:
            stack.pop()
        elif is_folder:
            try:
                below = storage.entries(name)
            except OSError as error:
                found = True
                yield failing(name, error)
                continue
            stack.append(_joined(name, _without_results(below)))
        elif is_image(name):
            found = True
            yield name
    if not found:
        yield failing(folder, f"expected a folder with images ({', '.join(SUFFIXES)}), found none")


def _joined(folder: str, found: list[storage.Entry]) -> Iterator[tuple[str, bool]]:
    for one in _shown(found):
        yield storage.join(folder, one.name), one.is_folder


def _without_results(found: list[storage.Entry]) -> list[storage.Entry]:
    """Without the masks of results: pictures that an engine wrote, perhaps of the images beside them."""
    if any(one.name == MANIFEST for one in found):
        return [one for one in found if one.name != MASKS]
    return found


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern: of a file that there is, it is not."""
    if not _MAGIC.search(storage.path_of(name)):
        return False
    return storage.is_url(name) or not storage.exists(name)


def matches(pattern: str) -> Iterator[str]:
    """Files and folders that match a pattern with `*`, `?`, `[…]`, and `**` for folders of any depth.

    Hidden ones match where a part of the pattern begins with a dot. Where the pattern does not say which suffix it
    means, files that match are those of images.
    """
    root, parts = storage.split_pattern(pattern)
    while parts and parts[-1] == _ANY_DEPTH:  # all that is below a folder is what the folder itself stands for
        parts.pop()
    last = os.path.splitext(parts[-1])[1] if parts else ""
    any_suffix = bool(last) and not _MAGIC.search(last)
    for name, is_folder in _expand(root, parts) if parts or root else [(".", True)]:
        if any_suffix or is_folder or is_image(name) or (not storage.is_url(name) and os.path.isdir(name)):
            yield name


def _expand(base: str, parts: list[str]) -> Iterator[tuple[str, bool]]:
    """Paths that match below a folder, with whether it is a folder."""
    if not parts:
        yield base, True
        return
    head, rest = parts[0], parts[1:]
    if not _MAGIC.search(head):
        yield from _expand_literal(storage.join(base, head) if base else head, rest)
        return
    try:
        below = storage.entries(base or ".")
    except OSError:  # a folder that is not there or cannot be read matches nothing, as in a shell
        return
    if head == _ANY_DEPTH:
        yield from _expand(base, rest)
        for one in _shown(_without_results(below)):
            if one.is_folder:
                yield from _expand(storage.join(base, one.name), parts)
        return
    below = _without_results(below)
    match = re.compile(fnmatch.translate(head)).match
    for one in below if head.startswith(".") else _shown(below):
        if match(one.name):
            name = storage.join(base, one.name)
            if rest:
                yield from _expand(name, rest)
            else:
                yield name, one.is_folder


def _expand_literal(name: str, rest: list[str]) -> Iterator[tuple[str, bool]]:
    if rest:
        yield from _expand(name, rest)
        return
    try:
        is_folder = storage.is_folder(name)
    except OSError:
        return
    yield name, is_folder


def _shown(found: list[storage.Entry]) -> list[storage.Entry]:
    return [one for one in found if not one.name.startswith(".")]


def no_match(pattern: str) -> Source:
    """The source that stands for a pattern without a match."""
    return failing(pattern, "expected a pattern that matches files, found none")
