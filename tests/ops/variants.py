"""The C++ kernels of the CPU in every variant that this machine can run, and what tests of them share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import native, ops

EXTENSION: Any = native.extension()
if EXTENSION is None:
    pytest.skip(f"native libraries: {native.status()['_C'].reason}", allow_module_level=True)

ISAS: list[str] = EXTENSION.cpu_isas()
PAIRS, TILES = "avx512_bf16", "avx512_amx"
OF_PAIRS = (PAIRS, TILES)
"""Variants that multiply pairs of bfloat16: factors are rounded to it, and subnormal numbers are zero."""
NATIVE = [name for name, op in ops.OPS.items() if "cpu" in op.kernels]
"""Operators that have a C++ kernel."""
DTYPES = [torch.float32, torch.bfloat16]


@contextmanager
def using_isa(name: str) -> Iterator[None]:
    """Have every kernel use one variant."""
    before = EXTENSION.cpu_isa()
    EXTENSION.set_cpu_isa(name)
    try:
        yield
    finally:
        EXTENSION.set_cpu_isa(before)


def in_pairs(isa: str, dtype: torch.dtype, *depths: int) -> bool:
    """Whether a variant multiplies by weights of a type in pairs, for sums of so many products.

    Then factors are rounded to bfloat16, and subnormal numbers are zero.
    """
    return isa in OF_PAIRS and dtype == torch.bfloat16 and all(depth % 2 == 0 for depth in depths)


@contextmanager
def nan_in_new_memory() -> Iterator[None]:
    """Have PyTorch fill new tensors with NaN: those of results, packed weights and working memory of the kernels."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.empty(1).isnan()
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def run(op: str, arguments: tuple[Any, ...], backend: str = "cpu") -> Tensor:
    """The result of one kernel, in memory that held NaN before."""
    with nan_in_new_memory(), torch.no_grad():
        return ops.OPS[op].run(backend, arguments)


def called(op: str, arguments: Sequence[Any], **changed: Any) -> Tensor:
    """What the C++ kernel itself says to these arguments, some of its own changed; ``packed`` are the weights."""
    definition = ops.OPS[op]
    overload = definition.overload("cpu")
    names = [argument.name.removeprefix("cpu_") for argument in overload._schema.arguments]
    given = dict(zip(names, definition.arguments_for("cpu", arguments), strict=True))
    assert changed.keys() <= given.keys()
    result: Tensor = overload(*(given | changed).values())
    return result


def in_type(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """The same arguments with every tensor in a type, strides kept."""
    return tuple(a.to(dtype) if isinstance(a, Tensor) else a for a in arguments)


def strided(x: Tensor) -> dict[str, Tensor]:
    """The same numbers in other layouts."""
    n, c, h, w = x.shape
    wide = torch.full((n, c + 9, h + 2, w + 2), math.nan, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
    wide[:, 4 : 4 + c, 1 : 1 + h, 1 : 1 + w] = x
    return {
        "contiguous": x.contiguous(),
        "slice": wide[:, 4 : 4 + c, 1 : 1 + h, 1 : 1 + w],
        "every second": x.repeat_interleave(2, 3)[..., ::2],
        "transposed": x.mT.contiguous().mT,
        "reversed rows and columns": x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    }


def dense(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments with every image in channels_last, in which PyTorch's rounding errors are smallest."""
    is_image = [isinstance(a, Tensor) and a.dim() == 4 and i < 2 for i, a in enumerate(arguments)]
    layout = torch.channels_last
    return tuple(a.contiguous(memory_format=layout) if i else a for a, i in zip(arguments, is_image, strict=True))


def exact_and_plain(op: str, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """The result in float64, and that of plain PyTorch in the arguments' type in channels_last."""
    return run(op, in_type(arguments, torch.float64), "reference"), run(op, dense(arguments), "reference")
