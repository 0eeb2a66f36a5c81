"""Whether kernels changed after they were measured: results carry digests of the sources, which are compared here.

A digest is of the files' code as text, without lines that are comments alone. So it needs no git, and a comment makes
no number older.
"""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = {
    "cpu": ("csrc/common", "csrc/cpu"),
    "cuda": ("csrc/common", "csrc/cuda"),
    "triton": ("mobilevit_fast/kernels/triton",),
}
"""Folders that hold the kernels of a backend."""
OLDER = "older"
_SUFFIXES = {".h": "//", ".cpp": "//", ".cu": "//", ".cuh": "//", ".py": "#", ".json": None}


def _code(path: Path) -> str:
    """Lines of a file that are neither empty nor a comment."""
    comment = _SUFFIXES[path.suffix]
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return "\n".join(line for line in lines if line and (comment is None or not line.startswith(comment)))


def digest_of(backend: str, root: Path = REPOSITORY) -> str:
    """Digest of a backend's kernels in a tree of the repository."""
    found = hashlib.sha256()
    for folder in SOURCES[backend]:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                found.update(f"{path.relative_to(root).as_posix()}\n{_code(path)}\n".encode())
    return found.hexdigest()[:16]


@functools.cache
def digests() -> dict[str, str]:
    """Digests of all backends' kernels, as they are in this tree."""
    return {backend: digest_of(backend) for backend in SOURCES}


def backends_of(device: str, rows: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Backends that the rows of a device show: Triton's only where it was measured."""
    if device == "cpu":
        return ("cpu",)
    measured = any("triton" in str(row.get("provider")) and row.get("median_ms") for row in rows)
    return ("cuda", "triton") if measured else ("cuda",)


def changed(device: str, results: dict[str, Any]) -> tuple[str, ...]:
    """Backends whose kernels are not those that were measured; results without digests are of unknown ones."""
    recorded = results["environment"].get("kernels") or {}
    return tuple(name for name in backends_of(device, results["rows"]) if recorded.get(name) != digests()[name])


def remark(device: str, results: dict[str, Any]) -> str:
    """A sentence for beside the numbers, empty where they are the kernels' of this tree."""
    folders = [f"`{SOURCES[name][-1]}`" for name in changed(device, results)]
    return f" **These numbers are {OLDER} than the kernels**: {' and '.join(folders)} changed since." if folders else ""


def suffix(device: str, results: dict[str, Any]) -> str:
    """The same for a title or a row, after the date."""
    return f", {OLDER} than the kernels" if changed(device, results) else ""
