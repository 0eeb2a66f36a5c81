"""Tensors in and out of weights files, and out of the wrappers that training scripts put around them."""

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mobilevit_fast.checkpoints.errors import CheckpointError, first_few

# Where training scripts keep the state dict, averaged weights first: both ml-cvnets and timm evaluate those.
_WRAPPERS = (
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "model_state_dict",
    "state_dict",
    "model",
)
# What DataParallel, AveragedModel, torch.compile and training loops put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_AVERAGED_MODEL_COUNTER = "n_averaged"

_LFS_POINTER = b"version https://git-lfs"
# What torch.load raises for damaged archives and pickles, depending on where the damage lies.
_DAMAGED = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def read_tensors(paths: tuple[Path, ...]) -> dict[str, Tensor]:
    """The state dict in one weights file, or in all the shards of one.

    Args:
        paths: `.safetensors` files, or pickles of PyTorch, which are read with `weights_only=True` only.

    Returns:
        Tensors on the CPU, out of wrappers, without prefixes that all names share.

    Raises:
        CheckpointError: a file is damaged, needs code to be unpickled, or holds no state dict.
    """
    result: dict[str, Tensor] = {}
    for path in paths:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise CheckpointError(f"{path}: expected weights, got a Git LFS pointer (run git lfs pull)")
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
        result.update(_unwrap(content, path))
    return _without_prefixes(result)


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a complete safetensors file, got one that fails with: {error}"
        ) from error


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: either it can be read or there is an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+)", str(error))
        got = f"one that needs {needed[1]}" if needed else "a damaged or foreign one"
        raise CheckpointError(f"{path}: expected a file of tensors only (weights_only=True), got {got}") from error
    except _DAMAGED as error:
        raise CheckpointError(f"{path}: expected a complete PyTorch file, got a damaged or foreign one") from error


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a dictionary of tensors, got {type(content).__name__}")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path}: expected tensors by name, bare or under one of {', '.join(_WRAPPERS)}, "
            f"got other values under {first_few(others)}"
        )
    return {str(name): tensor for name, tensor in content.items()}


def _without_prefixes(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    shared = True
    while shared:
        shared = False
        for prefix in _PREFIXES:
            named = [name for name in state_dict if name != _AVERAGED_MODEL_COUNTER]
            if named and all(name.startswith(prefix) for name in named):
                state_dict = {name.removeprefix(prefix): state_dict[name] for name in named}
                shared = True
    return state_dict
