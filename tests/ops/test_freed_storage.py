"""Tensors whose memory was taken away behind them, as FSDP does between calls: refused, where reading would crash."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from testing.samples import SAMPLES
from tests.ops.variants import NATIVE

TENSORS = [
    (op, name)
    for op in ops.OPS
    for name, value in zip(ops.OPS[op].argument_names, next(SAMPLES[op]()).arguments, strict=True)
    if isinstance(value, Tensor) or name == "x2"
]


def _arguments(op: str, name: str) -> list[Any]:
    """Those of a sample that has this one."""
    position = ops.OPS[op].argument_names.index(name)
    return list(next(s for s in SAMPLES[op]() if s.arguments[position] is not None).arguments)


def _in_storage(tensor: Tensor, offset: int) -> Tensor:
    """The same numbers, in the same order, ``offset`` numbers behind the beginning of a storage of their own."""
    size = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    view = torch.zeros(offset + size, dtype=tensor.dtype).as_strided(tensor.shape, tensor.stride(), offset)
    return view.copy_(tensor)


@pytest.mark.parametrize("offset", [0, 5])
@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_every_argument_of_every_operator(op: str, name: str, offset: int) -> None:
    arguments = _arguments(op, name)
    position = ops.OPS[op].argument_names.index(name)
    tensor = arguments[position] = _in_storage(arguments[position], offset)
    storage = tensor.untyped_storage()
    wanted = {backend: ops.OPS[op].run(backend, arguments) for backend in ("cpu", "reference")}
    _, *packed = ops.OPS[op].arguments_for("cpu", arguments)
    size = storage.nbytes()
    storage.resize_(0)
    for backend in wanted:
        with pytest.raises((RuntimeError, ValueError), match=f"mobilevit_fast.{op}: .* with memory for its shape"):
            ops.OPS[op].run(backend, arguments)
    if name == "x":
        with pytest.raises(RuntimeError, match="input with memory for its shape"):
            ops.OPS[op].overload("cpu")(tensor, *packed)
    storage.resize_(size - 1)
    for backend in wanted:
        with pytest.raises((RuntimeError, ValueError), match=f"storage was resized to {size - 1} bytes"):
            ops.OPS[op].run(backend, arguments)


@pytest.mark.parametrize("op", NATIVE)
def test_packed_weights(op: str) -> None:
    definition = ops.OPS[op]
    arguments = list(definition.arguments_for("cpu", next(SAMPLES[op]()).arguments))
    packed = arguments[2 if op == "conv2d_bias_act" else 1]
    for size in (packed.nbytes - 4, 0):
        packed.untyped_storage().resize_(size)
        with pytest.raises(RuntimeError, match=f"packed weights with memory .* resized to {size} bytes"):
            definition.overload("cpu")(*arguments)


def test_an_empty_tensor_needs_none() -> None:
    for op in ops.OPS:
        arguments = list(next(SAMPLES[op]()).arguments)
        arguments[0] = arguments[0][:0].clone()
        arguments[0].untyped_storage().resize_(0)
        for backend in ("cpu", "reference"):
            assert ops.OPS[op].run(backend, arguments).numel() == 0
