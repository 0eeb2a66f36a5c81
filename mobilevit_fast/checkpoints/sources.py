"""Where the files of a checkpoint lie: in a folder, on their own, or on the Hugging Face hub."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from mobilevit_fast.checkpoints.errors import CheckpointError, first_few
from mobilevit_fast.files import HUB_ERRORS, HubOptions, download, find, read_json_object, reason, user_path

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_FILES = (
    WEIGHTS_FILE,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names looked for in a folder or on the hub, the first that exists is read."""
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".pt.tar", ".pth.tar")
"""Ends of the names of weights files; those with .tar are no archives, timm calls pickles so."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

# A file by its name, or None when the place has no such file.
_Fetch = Callable[[str], Path | None]


@dataclass(frozen=True)
class Source:
    """The files of one checkpoint, by their places (`files.find` says where they lie).

    Attributes:
        weights: more than one when they are sharded.
        config: what describes them, if it is there; None where nothing would.
    """

    weights: tuple[Path, ...]
    config: Path | None


def locate(source: str | os.PathLike[str], hub: HubOptions) -> Source:
    """Find the files of a checkpoint, downloading what a hub id names.

    Args:
        source: a folder, a weights file, or a hub id such as `apple/mobilevit-small` where no such path exists.
        hub: how to look for a model of the hub.

    Raises:
        CheckpointError: there is no such file, folder or model, or the hub cannot be reached.
    """
    name = os.fspath(source)
    path = user_path(name)
    try:
        if path.is_dir():
            return _in_folder(path)
        if find(path) is not None:
            return _single_file(path)
    except OSError as error:
        raise CheckpointError(
            f"{name}: expected a folder, a weights file or a model id of the hub, got: {error.strerror}"
        ) from error
    if path.name.endswith(SUFFIXES) or not _HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"{name}: expected a folder, a weights file or a model id of the hub, found nothing there"
        )
    return _on_hub(name, hub)


def _in_folder(folder: Path) -> Source:
    def fetch(name: str) -> Path | None:
        return folder / name if find(folder / name) is not None else None

    weights = _weights(fetch)
    if not weights:
        found = sorted(entry.name for entry in folder.iterdir())
        raise CheckpointError(
            f"{folder}: expected one of {', '.join(WEIGHTS_FILES)}, "
            f"found {first_few(found, 6) if found else 'an empty folder'}"
        )
    return Source(weights, folder / CONFIG_FILE)


def _single_file(path: Path) -> Source:
    if not path.name.endswith(SUFFIXES):
        raise CheckpointError(f"{path}: expected a weights file ({', '.join(SUFFIXES)}), got {path.name}")
    # A config.json describes its neighbour only when that has the name of a saved model.
    return Source((path,), path.parent / CONFIG_FILE if path.name in WEIGHTS_FILES else None)


def _on_hub(name: str, hub: HubOptions) -> Source:
    unreachable: LocalEntryNotFoundError | None = None

    def fetch(filename: str) -> Path | None:
        nonlocal unreachable
        try:
            # Once the hub did not answer, only what was downloaded before can help.
            return download(name, filename, hub if unreachable is None else replace(hub, local_files_only=True))
        except LocalEntryNotFoundError as error:
            unreachable = unreachable or error
        except EntryNotFoundError:
            pass
        return None

    try:
        config = fetch(CONFIG_FILE)
        weights = _weights(fetch)
    except HUB_ERRORS as error:
        raise CheckpointError(f"{name}: no such file or folder, and the hub gave: {reason(error)}") from error
    if weights:
        return Source(weights, config)
    if unreachable is not None:
        online = "" if hub.local_files_only else "; the hub cannot be reached"
        message = f"{name}: no such file or folder, and no such model in the local cache of the hub{online}"
        raise CheckpointError(message) from unreachable
    raise CheckpointError(f"{name}: expected one of {', '.join(WEIGHTS_FILES)} in this model of the hub, found none")


def _weights(fetch: _Fetch) -> tuple[Path, ...]:
    for name in WEIGHTS_FILES:
        path = fetch(name)
        if path is None:
            continue
        if not name.endswith(".index.json"):
            return (path,)
        shards = [(shard, fetch(shard)) for shard in _shard_names(path)]
        missing = [shard for shard, found in shards if found is None]
        if missing:
            raise CheckpointError(f"{path}: expected all the files it lists, {first_few(missing)} missing")
        return tuple(found for _, found in shards if found is not None)
    return ()


def _shard_names(index: Path) -> list[str]:
    values = read_json(index)
    names = values.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index}: expected a weight_map of tensor names to files, got keys {list(values)}")
    shards = sorted({str(name) for name in names.values()})
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(SUFFIXES):
            raise CheckpointError(f"{index}: expected names of weights files beside it, got {shard!r}")
    return shards


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        return read_json_object(path, "JSON")
    except OSError as error:
        raise CheckpointError(f"{path}: expected a JSON file, got: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(str(error)) from error
