"""The kernels for few images on a GPU of compute capability 9.0: every region of the three sizes, few images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from testing.shapes import OperatorCall
from testing.tolerance import assert_within_twice
from tests.regions import arguments, double, regions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
        reason="needs a GPU of compute capability 9.0",
    ),
]

BATCHES = (1, 2, 3, 8)
TYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def check(op: str, given: tuple[Any, ...]) -> Tensor:
    definition = ops.OPS[op]
    with torch.no_grad():
        actual = definition("cuda", *given)
        assert_within_twice(actual, definition.reference(*given), definition.reference(*double(given)))
    return actual


def kernels(op: str, given: tuple[Any, ...]) -> list[str]:
    """Names of the kernels that an operator starts, once its parameters are packed."""
    definition = ops.OPS[op]
    overload, bound = definition.overload("cuda"), definition.arguments_for("cuda", given)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        overload(*bound)
        torch.cuda.synchronize()
    return [event.name for event in profile.events()]


@TYPES
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("call", regions())
def test_error_is_within_twice_pytorchs(call: OperatorCall, batch: int, dtype: torch.dtype) -> None:
    """And the same every time, although blocks exchange what they compute in an order of their own."""
    given = arguments(call, batch, seed=batch, device="cuda", dtype=dtype)
    expected = check(call.op, given)
    again = [ops.OPS[call.op]("cuda", *given) for _ in range(5)]
    assert all(torch.equal(result, expected) for result in again)


@TYPES
@pytest.mark.parametrize(
    "call", regions("conv2d_bias_act", "inverted_residual", "mobilevit_transformer", "classifier_head")
)
def test_one_image_is_for_these_kernels(call: OperatorCall, dtype: torch.dtype) -> None:
    if call.op == "conv2d_bias_act" and call.shape["inputs"] == 3:
        pytest.skip("the stem has a kernel of its own")
    found = kernels(call.op, arguments(call, 1, device="cuda", dtype=dtype))
    assert any("few::" in name for name in found), found


@TYPES
@pytest.mark.parametrize("factor", [30.0, 600.0])
@pytest.mark.parametrize("call", regions("mobilevit_transformer"))
def test_large_attention_scores(call: OperatorCall, factor: float, dtype: torch.dtype) -> None:
    """Up to about a million."""
    given = list(arguments(call, 2, device="cuda", dtype=dtype))
    weight = list(call.named).index("qkv_weight")
    features = given[weight].shape[2]
    given[weight][:, : 2 * features] *= factor
    check(call.op, tuple(given))


@TYPES
@pytest.mark.parametrize("call", regions("mobilevit_transformer"))
def test_tokens_whose_mean_is_far_from_zero(call: OperatorCall, dtype: torch.dtype) -> None:
    given = list(arguments(call, 1, device="cuda", dtype=dtype))
    bias = list(call.named).index("in_bias")
    if given[bias] is None:
        given[bias] = torch.zeros(given[bias - 1].shape[0], device="cuda")
    given[bias] = given[bias] + 50
    check(call.op, tuple(given))


@TYPES
@pytest.mark.parametrize("size", [(7, 9), (13, 11), (14, 28)])
@pytest.mark.parametrize("call", regions("conv2d_bias_act", "inverted_residual"))
def test_images_of_other_sizes(call: OperatorCall, size: tuple[int, int], dtype: torch.dtype) -> None:
    if call.shape["inputs"] == 3:
        pytest.skip("the stem has a kernel of its own")
    given = [
        torch.randn(2, *size, a.shape[1], device="cuda", dtype=dtype).permute(0, 3, 1, 2)
        if name in ("x", "x2") and a is not None
        else a
        for name, a in zip(call.named, arguments(call, 1, device="cuda", dtype=dtype), strict=True)
    ]
    check(call.op, tuple(given))


def test_kernels_that_follow_each_other_see_what_was_written() -> None:
    """Each begins before the one before it ends: a chain of them gives what it gives with waits in between."""
    call = next(
        call
        for (call,) in (region.values for region in regions("inverted_residual"))
        if call.shape["inputs"] == call.shape["outputs"] and call.shape["stride"] == 1
    )
    first, *rest = arguments(call, 1, device="cuda")
    definition = ops.OPS[call.op]
    overload, (_, *bound) = definition.overload("cuda"), definition.arguments_for("cuda", (first, *rest))

    def run(wait: bool) -> Tensor:
        x = first
        for _ in range(8):
            x = overload(x, *bound)
            if wait:
                torch.cuda.synchronize()
        return x

    expected = run(wait=True)
    assert all(torch.equal(run(wait=False), expected) for _ in range(10))
