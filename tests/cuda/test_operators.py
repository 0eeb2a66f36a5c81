"""Every operator of the CUDA library through its binding: values, layouts, fakes, refusals, what others get."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mobilevit_fast import ops
from mobilevit_fast.ops.registry import BackendError
from tests.ops.compositions import COMPOSITIONS
from tests.samples import SAMPLES, Sample
from tests.tolerance import assert_within_twice

DTYPES = [torch.float16, torch.bfloat16]
OPS = [name for name, op in ops.OPS.items() if "cuda" in op.kernels]


def supported(op: str, sample: Sample) -> bool:
    """Whether the kernel takes a sample; the samples are the same on every device."""
    definition = ops.OPS[op]
    return definition.kernels["cuda"].takes(torch.float16, definition.named(sample.arguments)).ok


ALL = [(op, sample) for op in OPS for sample in SAMPLES[op]()]
TAKEN = [pytest.param(op, s, id=f"{op}-{s.name}") for op, s in ALL if supported(op, s)]
REFUSED = [pytest.param(op, s, id=f"{op}-{s.name}") for op, s in ALL if not supported(op, s)]
FIRST = [pytest.param(op, next(s for o, s in ALL if o == op and supported(op, s)), id=op) for op in OPS]


def on(device: torch.device, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with their tensors on a device, strides kept."""
    return tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments)


def kernel_arguments(op: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the overload takes: the operator's arguments and their packed parameters."""
    return *arguments, ops.OPS[op].pack("cuda", arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "sample"), TAKEN)
def test_error_is_within_twice_pytorchs(op: str, sample: Sample, dtype: torch.dtype, device: torch.device) -> None:
    arguments = on(device, sample.to(dtype))
    with torch.no_grad():
        exact = COMPOSITIONS[op](*(a.double() if isinstance(a, Tensor) else a for a in arguments))
        plain = COMPOSITIONS[op](*arguments)
        actual = ops.OPS[op]("cuda", *arguments)
    assert actual.dtype == dtype
    assert_within_twice(actual, plain, exact)


@pytest.mark.parametrize(("op", "sample"), REFUSED)
def test_what_the_kernel_does_not_take_has_a_reason(op: str, sample: Sample, device: torch.device) -> None:
    arguments = on(device, sample.to(torch.float16))
    with pytest.raises(BackendError, match=rf"mobilevit_fast\.{op}: cuda: expected .*, got "):
        ops.OPS[op]("cuda", *arguments)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_other_types_and_activations_are_left_to_others(op: str, sample: Sample, device: torch.device) -> None:
    with pytest.raises(BackendError, match=r"expected one of torch\.float16, torch\.bfloat16, got torch\.float32"):
        ops.OPS[op]("cuda", *on(device, sample.arguments))
    arguments = ["gelu" if isinstance(a, str) else a for a in on(device, sample.to(torch.float16))]
    with pytest.raises(BackendError, match=r"expected \w*activation among none, relu, silu, got 'gelu'"):
        ops.OPS[op]("cuda", *arguments)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_the_dispatcher_agrees(op: str, sample: Sample, device: torch.device) -> None:
    """Schema, fake kernel with its strides, dynamic shapes."""
    arguments = kernel_arguments(op, on(device, sample.to(torch.float16)))
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(ops.OPS[op].overload("cuda"), arguments, test_utils=tests)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_an_input_may_lie_anywhere(op: str, sample: Sample, device: torch.device) -> None:
    """Two bytes behind where 16 can be read at once; in rows cut out of longer ones; there may be no image at all."""
    x, *rest = on(device, sample.to(torch.float16))
    expected = ops.OPS[op]("cuda", x, *rest)
    memory = torch.empty(x.numel() + 1, dtype=x.dtype, device=device)
    n, c, h, w = x.shape
    moved = memory[1:].view(n, h, w, c).permute(0, 3, 1, 2).copy_(x)
    assert torch.equal(ops.OPS[op]("cuda", moved, *rest), expected)
    cut = torch.cat([x, x], dim=3)[..., :w]
    assert torch.equal(ops.OPS[op]("cuda", cut, *rest), expected)
    assert ops.OPS[op]("cuda", x[:0], *rest).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize(("op", "sample"), FIRST)
@given(data=st.data())
def test_one_wrong_dimension_in_any_tensor_is_refused(
    op: str, sample: Sample, device: torch.device, data: st.DataObject
) -> None:
    """By the binding itself, whoever calls it: nothing is read out of bounds."""
    arguments = list(kernel_arguments(op, on(device, sample.to(torch.float16))))
    overload = ops.OPS[op].overload("cuda")
    position = data.draw(st.sampled_from([i for i, a in enumerate(arguments) if isinstance(a, Tensor)]))
    shape = list(arguments[position].shape)
    dimension = data.draw(st.integers(0, len(shape) - 1))
    if position == 0 and dimension != 1:
        return  # another image is not an error
    if op == "conv2d_bias_act" and position == 2 and dimension > 1:
        return  # nor another window, of as many packed numbers
    shape[dimension] += data.draw(st.sampled_from([-1, 1, 2, 8]).filter(lambda step: shape[dimension] + step > 0))
    arguments[position] = arguments[position].new_zeros(shape)
    with pytest.raises(RuntimeError, match=rf"mobilevit_fast\.{op}: expected"):
        overload(*arguments)


@pytest.mark.parametrize(("op", "sample"), FIRST)
def test_a_tensor_of_another_type_or_rank_is_refused(op: str, sample: Sample, device: torch.device) -> None:
    arguments = list(kernel_arguments(op, on(device, sample.to(torch.float16))))
    overload = ops.OPS[op].overload("cuda")
    for position, argument in enumerate(arguments):
        if not isinstance(argument, Tensor):
            continue
        for changed in (argument[None], argument[0], argument.to(torch.int32), argument.double()):
            changed_arguments = [*arguments[:position], changed, *arguments[position + 1 :]]
            with pytest.raises(RuntimeError, match=rf"mobilevit_fast\.{op}: expected"):
                overload(*changed_arguments)
