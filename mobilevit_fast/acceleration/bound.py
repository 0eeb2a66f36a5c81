"""Kernels with the weights of a region bound to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mobilevit_fast.acceleration.layouts import CURRENT, Layout
from mobilevit_fast.acceleration.parts import Unsupported
from mobilevit_fast.acceleration.programs import Recording
from mobilevit_fast.ops.registry import Op


def recording() -> Recording | None:
    """What records the call of a model that is under way; None where nothing does."""
    call = CURRENT.call
    return None if call is None else call.recording


class Bound(NamedTuple):
    """A kernel with every argument but the activations; ``passed_over`` says why no earlier backend was taken."""

    overload: Any
    backend: str
    passed_over: tuple[str, ...]
    arguments: tuple[Any, ...]

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        result: Tensor = self.overload(*inputs, *self.arguments)
        if not torch.compiler.is_compiling() and (noted := recording()) is not None:
            noted.add(self.overload, inputs, self.arguments, result)
        return result


class Bounds(dict[str, Bound]):
    """The kernels of a region, by their operators within it, their type, and the layout of the original's results."""

    def __init__(self, bounds: Mapping[str, Bound], dtype: torch.dtype, layout: Layout | None) -> None:
        super().__init__(bounds)
        self.dtype = dtype
        self.layout = layout


def bind(op: Op, backend: str, dtype: torch.dtype, num_inputs: int, *arguments: Any) -> Bound:
    """Choose a kernel for these arguments, which follow the first ``num_inputs`` ones of the operator."""
    _, weights, _ = op.split((*(None,) * num_inputs, *arguments))
    if not torch.compiler.is_compiling():  # where it would be traced, for seconds
        try:
            op.declaration.check(op.name, weights[0], weights, op.declaration.sizes(op.name, None, weights))
        except ValueError as misfit:
            raise Unsupported(str(misfit)) from None
    device = weights[0].device
    choice = op.choose(backend, device, dtype, op.named(arguments, num_inputs))
    bound = op.arguments_for(choice.backend, (*(None,) * num_inputs, *arguments))
    return Bound(choice.overload, choice.backend, choice.passed_over, bound[num_inputs:])


def converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in a type."""
    if x.dtype == dtype:
        return x
    result = x.to(dtype)
    if not torch.compiler.is_compiling() and (noted := recording()) is not None:
        noted.add(torch.Tensor.to, (x,), (dtype,), result)
    return result
