"""Origin of a folder of results, so that no run goes on with those of another."""

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilevit_fast.engine.results.formats import FORMATS
from mobilevit_fast.engine.results.parts import part_of, parts_in
from mobilevit_fast.files import read_json_object, write_atomically

MANIFEST = "_manifest.json"
MASKS = "masks"
_KIND = "results of mobilevit_fast"
_STATS = re.compile(r"_stats(-\d+-of-\d+)?\.json")
_MASK = re.compile(r"[0-9a-f]{32}\.png")


@dataclass(frozen=True)
class Manifest:
    """Everything that makes two runs the same.

    Attributes:
        fingerprint: whatever the answers depend on, as JSON has it; the format and the outputs among it.
        format: of the parts.
        outputs: the columns beside `source` and `error`.
        top_k: classes that a row has columns for where the format needs to know.
        clearing: formats of the parts of an earlier run that may still be there, and count no more.
    """

    fingerprint: dict[str, Any]
    format: str
    outputs: tuple[str, ...]
    top_k: int
    clearing: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Put it into a folder, over an older one."""
        values = {
            "kind": _KIND,
            "format": self.format,
            "outputs": list(self.outputs),
            "top_k": self.top_k,
            "fingerprint": self.fingerprint,
            **({"clearing": list(self.clearing)} if self.clearing else {}),
        }
        write_atomically(folder / MANIFEST, f"{json.dumps(values, indent=2, allow_nan=False)}\n".encode())

    def differences(self, other: "Manifest") -> list[str]:
        """The keys of the fingerprint that two runs differ in."""
        keys = dict.fromkeys([*self.fingerprint, *other.fingerprint])
        missing = object()
        return [key for key in keys if self.fingerprint.get(key, missing) != other.fingerprint.get(key, missing)]


def manifest_of(fingerprint: Mapping[str, Any], format_name: str, outputs: tuple[str, ...], top_k: int) -> Manifest:
    """The manifest of a new run.

    Raises:
        TypeError: JSON cannot hold the fingerprint.
    """
    whole = {**fingerprint, "format": format_name, "outputs": list(outputs), "top_k": top_k}
    return Manifest(json.loads(json.dumps(without_nan(whole))), format_name, outputs, top_k)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, None where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: what is there is no manifest of this package.
    """
    path = folder / MANIFEST
    try:
        values = read_json_object(path)
    except FileNotFoundError:
        return None
    try:
        if values["kind"] != _KIND or values["format"] not in FORMATS or not isinstance(values["fingerprint"], dict):
            raise ValueError
        outputs, top_k = tuple(map(str, values["outputs"])), int(values["top_k"])
        clearing = tuple(name for name in values.get("clearing", ()) if name in FORMATS)
        return Manifest(values["fingerprint"], values["format"], outputs, top_k, clearing)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: expected the manifest of a folder of results, got another file") from None


def clear(folder: Path, formats: tuple[str, ...]) -> None:
    """Remove the parts in these formats, and what belongs to them; nothing else."""
    for part in parts_in(folder, formats):
        os.unlink(folder / part.name)
    for name in os.listdir(folder):
        if _STATS.fullmatch(name):
            os.unlink(folder / name)
    masks = folder / MASKS
    if masks.is_dir() and not masks.is_symlink():
        for name in os.listdir(masks):
            if _MASK.fullmatch(name):
                os.unlink(masks / name)
        with suppress(OSError):  # where there is more in it
            masks.rmdir()


def is_ours(name: str) -> bool:
    """Whether a file of this name is one that a run writes."""
    return name == MANIFEST or _STATS.fullmatch(name) is not None or part_of(name) is not None


def without_nan(value: Any) -> Any:
    """The same value as JSON can hold it: null in the place of NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): without_nan(one) for key, one in value.items()}
    return [without_nan(one) for one in value] if isinstance(value, list | tuple) else value


def stats_content(stats: Mapping[str, Any]) -> bytes:
    """The content of a file of statistics."""
    return f"{json.dumps(without_nan(stats), indent=2, allow_nan=False)}\n".encode()
