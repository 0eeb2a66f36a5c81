"""Tensors in and out of weights files, and out of the wrappers that training scripts put around them."""

import logging
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from mobilevit_fast import limits
from mobilevit_fast.checkpoints.errors import CheckpointError, first_few
from mobilevit_fast.checkpoints.pickle_file import read_pickle
from mobilevit_fast.checkpoints.safetensors_file import CONFIG_KEY, read_safetensors
from mobilevit_fast.files import open_found

logger = logging.getLogger(__name__)

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

# What torch.load raises for a damaged file, which depends on where the damage lies.
_DAMAGE = (
    *(AssertionError, AttributeError, EOFError, LookupError, OSError, OverflowError, RuntimeError, TypeError),
    *(ValueError, struct.error, zipfile.BadZipFile),
)
_LFS_POINTER = b"version https://git-lfs"
_FLOATING_POINT = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


class Content(NamedTuple):
    """Content of weights files.

    Attributes:
        tensors: on the CPU by name, out of wrappers, without prefixes that all names share.
        config: the text of the configuration that this package writes into them, if it is there.
        key: where the state dict was, unless it was all there is.
    """

    tensors: dict[str, Tensor]
    config: str | None
    key: str | None = None


def read_tensors(paths: tuple[Path, ...], *, mmap: bool = False) -> Content:
    """The state dict in one weights file, or in all the shards of one.

    Args:
        paths: `.safetensors` files, or pickles of PyTorch, which are read with `weights_only=True` only.
        mmap: map the files instead of copying them into memory.

    Raises:
        CheckpointError: a file cannot be read, is damaged, needs code to be unpickled, holds no state dict, tensors
            without values of their own, or more than the limits allow.
    """
    result: dict[str, Tensor] = {}
    config = key = None
    for path in paths:
        try:
            with open_found(path) as file:
                pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
        except OSError as error:
            raise CheckpointError(f"{path}: expected a weights file, got: {error.strerror}") from error
        if pointer:
            raise CheckpointError(f"{path}: expected weights, got a Git LFS pointer (run git lfs pull)")
        if path.suffix == ".safetensors":
            tensors, metadata = _read_safetensors(path, mmap)
            config = metadata.get(CONFIG_KEY, config)
        else:
            tensors, key = _unwrap(_read_pickle(path, mmap), path)
        twice = sorted(result.keys() & tensors.keys())
        if twice:
            raise CheckpointError(f"{path}: expected every tensor in one file of several, got {first_few(twice)} again")
        result.update(tensors)
    try:
        check_tensors(result)
    except CheckpointError as error:
        raise CheckpointError(f"{paths[0]}: {error}") from error
    return Content(_without_prefixes(result), config, key)


def check_tensors(state_dict: Mapping[str, Tensor]) -> None:
    """See that a state dict is one of a model, and no larger than the limits allow.

    Raises:
        CheckpointError: one of its tensors is not dense, has no values, or has a type no model computes in; or there
            are too many.
    """
    try:
        limits.check("MAX_TENSORS", len(state_dict), "tensors in the state dict")
        for name, tensor in state_dict.items():
            check_tensor(name, tensor)
        limits.check("MAX_PARAMETERS", sum(map(Tensor.numel, state_dict.values())), "elements of all tensors")
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def check_tensor(name: str, tensor: Tensor) -> None:
    """See that a tensor is dense, has values and a type that models hold; else raise a CheckpointError."""
    got = None
    if tensor.is_nested:
        got = "a nested one"
    elif tensor.layout != torch.strided:
        got = f"a sparse one ({str(tensor.layout).removeprefix('torch.')})"
    elif tensor.is_meta:
        got = "one without values (on the device meta)"
    elif tensor.is_quantized:
        got = f"a quantised one ({tensor.dtype})"
    elif tensor.dtype not in _FLOATING_POINT + _WHOLE_NUMBERS:
        got = f"one of {tensor.dtype}"
    elif tensor.numel() and type(tensor) in (Tensor, torch.nn.Parameter) and not tensor.untyped_storage().size():
        got = "one whose memory was freed"
    if got is not None:
        types = ", ".join(str(dtype).removeprefix("torch.") for dtype in _FLOATING_POINT)
        raise CheckpointError(f"{name}: expected a dense tensor of {types} or whole numbers, got {got}")


def _read_safetensors(path: Path, mmap: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_safetensors(path, mmap=mmap)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path}: expected a complete safetensors file, got one that fails with: {error}"
        ) from error


def _read_pickle(path: Path, mmap: bool) -> object:
    try:
        return read_pickle(path, mmap=mmap)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+( with other values than plain ones)?)", str(error))
        got = f"one that needs {needed[1]}" if needed else "a damaged or foreign one"
        raise CheckpointError(f"{path}: expected a file of tensors only (weights_only=True), got {got}") from error
    except _DAMAGE as error:
        if "DefaultCPUAllocator" in str(error):  # no damage, but a RuntimeError of PyTorch's all the same
            raise
        raise CheckpointError(f"{path}: expected a complete PyTorch file, got a damaged or foreign one") from error


def _unwrap(content: object, path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The state dict, and the key that it was found under."""
    wrappers, found = 0, None
    while isinstance(content, Mapping):
        inner = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        found = inner[0]
        beside = [key for key, value in content.items() if key != found and _holds_weights(value)]
        if beside:
            names = first_few([_shown(key) for key in beside])
            logger.warning("%s: the weights under %s are read, other tensors are not (%s)", path, found, names)
        content, wrappers = content[found], wrappers + 1
        if wrappers > limits.MAX_WRAPPERS:  # or one that contains itself
            raise CheckpointError(
                f"{path}: expected a state dict inside {limits.raised('MAX_WRAPPERS')} dictionaries, got more"
            )
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a dictionary of tensors, got {type(content).__name__}")
    others = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise CheckpointError(
            f"{path}: expected tensors by name, bare or under one of {', '.join(_WRAPPERS)}, "
            f"got other values under {first_few([_shown(key) for key in others])}"
        )
    return dict(content.items()), found


def _holds_weights(value: object) -> bool:
    """Whether this may be part of a model: a state dict, or an array of numbers with a fraction."""
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(one, Tensor) for one in value.values())
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0


def _shown(key: object) -> str:
    """A key as text, of which keys that contain themselves have none."""
    return key[:100] if isinstance(key, str) else type(key).__name__


def _without_prefixes(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    for _ in range(limits.MAX_WRAPPERS):  # each adds at most one prefix
        for prefix in _PREFIXES:
            named = [name for name in state_dict if name != _AVERAGED_MODEL_COUNTER]
            if named and all(name.startswith(prefix) for name in named):
                state_dict = {name.removeprefix(prefix): state_dict[name] for name in named}
    return state_dict
