"""Reading safetensors files into memory of their own.

The library's reader maps the file: tensors then change, or their process dies, when another program rewrites or
truncates it. Here every tensor is a copy, and the header is checked against the file's size before memory is taken.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from mobilevit_fast import limits
from mobilevit_fast.files import find, open_found, parse_json_object

CONFIG_KEY = "mobilevit_config"
"""The entry of the file's metadata in which this package keeps the text of config.json."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types of numbers that are read, by the format's names."""

_LENGTH_BYTES = 8  # of the header's length, which comes first
_MAX_RANK = 8


class _Entry(NamedTuple):
    dtype: torch.dtype
    shape: list[int]
    start: int
    end: int


def read_safetensors(path: Path, *, mmap: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file on the CPU, and its metadata.

    Args:
        path: of the file.
        mmap: map the file instead of copying it, for whoever knows that nobody writes to it meanwhile.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, holds types that no model has, or asks for more than the limits allow.
    """
    with open_found(path) as file:
        before = os.fstat(file.fileno())
        entries, metadata, first = _read_header(file, before.st_size)
        if mmap:
            return load_file(find(path) or path, device="cpu"), metadata
        tensors: dict[str, Tensor] = {}
        for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
            try:
                tensor = torch.empty(entry.shape, dtype=entry.dtype)
            except RuntimeError as error:  # sizes whose product overflows, although one of them is 0
                raise ValueError(f"{name!r} has a shape that no tensor can have: {list(entry.shape)}") from error
            file.seek(first + entry.start)
            if tensor.numel():
                memory = tensor.view(-1).view(torch.uint8).numpy().data
                if file.readinto(memory) != len(memory):
                    raise ValueError("it became shorter while it was read")
            tensors[name] = tensor
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError("it was written to while it was read")
    return {name: tensors[name] for name in entries}, metadata


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, _Entry], dict[str, str], int]:
    """The entries by name, the metadata, and where the first tensor begins."""
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
        raise ValueError(f"its header would have {length:,} bytes, the file has {size:,}")
    if length > limits.MAX_JSON_BYTES:
        raise ValueError(f"expected a header of {limits.raised('MAX_JSON_BYTES')} bytes, got {length:,}")
    header = parse_json_object(file.read(length), "a header in JSON")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("expected metadata of texts by name")
    limits.check("MAX_TENSORS", len(header), "tensors in the file")
    entries = {name: _entry(name, described) for name, described in header.items()}
    limits.check("MAX_PARAMETERS", sum(math.prod(one.shape) for one in entries.values()), "elements of all tensors")
    first = _LENGTH_BYTES + length
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != end:
            raise ValueError(f"{name} begins at byte {entry.start:,} of the data, expected {end:,}")
        end = entry.end
    if first + end != size:
        raise ValueError(f"expected {first + end:,} bytes, got {size:,}")
    return entries, metadata, first


def _entry(name: str, described: Any) -> _Entry:
    """One tensor's type, shape and place, checked against each other."""
    if not isinstance(described, Mapping):
        raise ValueError(f"{name}: expected dtype, shape and data_offsets, got {type(described).__name__}")
    dtype = described.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name}: expected a type among {', '.join(DTYPES)}, got {str(dtype)[:40]}")
    shape = _whole_numbers(described, "shape", name)
    if math.prod(size for size in shape if size) >= 2**60:  # sizes beside one of 0, whose strides overflow all the same
        raise ValueError(f"{name}: expected a shape that a tensor can have, got {shape}")
    offsets = _whole_numbers(described, "data_offsets", name)
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{name}: shape {shape} of {dtype} does not fit data_offsets {offsets}")
    return _Entry(DTYPES[dtype], shape, *offsets)


def _whole_numbers(described: Mapping[str, Any], key: str, name: str) -> list[int]:
    values = described.get(key)
    fits = isinstance(values, list) and len(values) <= _MAX_RANK
    if not fits or not all(type(value) is int and 0 <= value < 2**62 for value in values or ()):
        raise ValueError(f"{name}: expected {key} to be up to {_MAX_RANK} whole numbers, got {str(values)[:40]}")
    return values or []
