"""Transformer stacks of few images whose sequences have fewer tokens than the kernel has room for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from emulator.run import check, run
from testing.shapes import OperatorCall
from testing.tiers import thorough, thorough_but
from testing.tolerance import rms_error
from tests.emulator.test_mobilevit_transformer import DTYPES
from tests.emulator.test_sm90_small import MORE_BFLOAT16, SHORT_STACK, ending, few, sized

SIZES = {32: (28, 28), 16: (14, 14), 8: (6, 6)}
"""Images by the size of those that leave no place empty: 196 of 256 tokens, 49 of 64, 9 of 16."""
OTHERS = {32: [(30, 34), (16, 32)], 16: [(2, 126), (6, 22)], 8: [(6, 10), (4, 8)]}
"""All places but one, and about half of them: 255 and 128 tokens, 63 and 33, 15 and 8."""
MIDDLE_STACK, LONG_STACK = "4-80-160-64", "2-64-128-48"
LENGTHS = pytest.mark.parametrize("call", thorough_but(ending(SHORT_STACK, MIDDLE_STACK, LONG_STACK), SHORT_STACK))
"""Sequences of one block, of blocks that share out tokens, and of warps that share out keys as well."""


def check_masked(given: tuple[Any, ...], **options: Any) -> None:
    (launch,) = check("mobilevit_transformer", given, capability=90, **options)
    assert "StackKernel" in launch.kernel
    assert "Masked<" in launch.kernel


def fewer(call: OperatorCall, images: int = 1, dtype: torch.dtype = torch.float16) -> tuple[Any, ...]:
    return sized(call, images, *SIZES[call.shape["height"]], dtype)


@MORE_BFLOAT16
@pytest.mark.parametrize("call", thorough_but(few("mobilevit_transformer"), SHORT_STACK, MIDDLE_STACK))
def test_every_shape(call: OperatorCall, dtype: torch.dtype) -> None:
    """Those of images of 224 pixels among them."""
    check_masked(fewer(call, dtype=dtype), seed=6)


@pytest.mark.parametrize("number", [thorough(0), 1])
@LENGTHS
def test_other_lengths(call: OperatorCall, number: int) -> None:
    check_masked(sized(call, 1, *OTHERS[call.shape["height"]][number]))


@LENGTHS
def test_results_do_not_depend_on_the_order_of_threads(call: OperatorCall) -> None:
    given = fewer(call)
    results = [run(call.op, given, capability=90, seed=seed)[0] for seed in range(3, 6)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", [DTYPES[0], thorough(DTYPES[1])], ids=str)
@LENGTHS
def test_large_attention_scores(call: OperatorCall, dtype: torch.dtype) -> None:
    """Up to about a million, beside which what is masked is as far below."""
    given = fewer(call, 3, dtype)
    weight = given[list(call.named).index("qkv_weight")]
    weight[:, : 2 * weight.shape[2]] *= 600
    check_masked(given, measure=rms_error)


@LENGTHS
def test_what_is_not_a_number_stays_in_its_sequence(call: OperatorCall) -> None:
    """Also where its token is the last one, whose copies fill the places that are left."""
    x, *rest = fewer(call)
    expected, _ = run(call.op, (x, *rest), capability=90)
    x[0, 3, -2, -1] = torch.nan
    actual, _ = run(call.op, (x, *rest), capability=90)
    assert actual[0, :, ::2, 1::2].isnan().all()
    actual[0, :, ::2, 1::2] = expected[0, :, ::2, 1::2]
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(("ends", "tokens"), [("3-240-480-160", 6), (SHORT_STACK, 8)])
def test_much_shorter_sequences_are_left_to_other_kernels(ends: str, tokens: int) -> None:
    """Which take less time the shorter they are: by the times of the first, by half where there are none."""
    (call,) = [region.values[0] for region in ending(ends)]
    kernels = [run(call.op, sized(call, 1, 2, 2 * n), capability=90)[1][0].kernel for n in (tokens, tokens - 1)]
    assert ["few::StackKernel" in kernel for kernel in kernels] == [True, False]
