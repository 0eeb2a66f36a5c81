"""The kernels for few images of compute capability 9.0, emulated: every region of the three sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from emulator.run import check, run
from testing.shapes import OperatorCall
from testing.tiers import thorough, thorough_but
from tests.regions import arguments, regions

KERNELS = {
    "conv2d_bias_act": "ConvKernel",
    "inverted_residual": "ResidualKernel",
    "mobilevit_transformer": "StackKernel",
    "classifier_head": "HeadKernel",
}
BOTH = [torch.float16, torch.bfloat16]
MORE_BFLOAT16 = pytest.mark.parametrize("dtype", [BOTH[0], thorough(BOTH[1])], ids=str)


CONVOLUTIONS = ("80-8-8-80-3-1", "64-16-16-64-64-3-1", "96-32-32-96-3-1")
"""Ends of names: of each number of pixels, over one input and over two."""
RESIDUALS = ("16-128-128-32-24-3-2", "48-64-64-192-48-3-1", "128-16-16-512-160-3-2")
"""Of both strides, with the addition and without, narrow and wide."""
STACKS = ("48-32-32-2-64-128-48", "64-16-16-4-80-160-64", "80-8-8-3-96-192-80", "160-8-8-3-240-480-160")
"""Of each number of tokens, and the widest: a sequence by one block and by four, warps that share out depth or keys."""
SHORT_STACK, HEAD = "80-8-8-3-96-192-80", "80-8-8-320-1000"


def few(*ops: str) -> list[Any]:
    """Regions but the stem, which has no kernel for few images."""
    return [region for region in regions(*(ops or KERNELS)) if "conv2d_bias_act-3-" not in str(region.id)]


def ending(*ends: str) -> list[Any]:
    """Regions whose names end with one of these."""
    return [region for region in few() if str(region.id).endswith(ends)]


def sized(
    call: OperatorCall, batch: int, height: int, width: int, dtype: torch.dtype = torch.float16
) -> tuple[Any, ...]:
    """A call's arguments with images of another size."""
    given = []
    for name, value in zip(call.named, arguments(call, batch, dtype=dtype), strict=True):
        image = name in ("x", "x2") and value is not None
        made = torch.randn(batch, height, width, value.shape[1]).to(dtype).permute(0, 3, 1, 2) if image else value
        given.append(made)
    return tuple(given)


@pytest.mark.parametrize("call", thorough_but(few(), *CONVOLUTIONS, *RESIDUALS, *STACKS, HEAD))
def test_one_image(call: OperatorCall) -> None:
    """In an order that leaves most warps behind, and lets copies arrive late."""
    (launch,) = check(call.op, arguments(call, 1), capability=90, seed=6)
    assert launch.name == KERNELS[call.op]


@pytest.mark.parametrize("call", thorough_but(few("mobilevit_transformer", "classifier_head"), SHORT_STACK, HEAD))
def test_two_images(call: OperatorCall) -> None:
    check(call.op, arguments(call, 2, seed=1), capability=90, seed=5)


SMALLEST = ("80-8-8-80-3-1", "128-16-16-512-160-3-2", SHORT_STACK, HEAD)
"""Ends of names: of each operator the region of which the emulator has least to do."""


@pytest.mark.parametrize("seed", [6, pytest.param(11, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("call", thorough_but(few(), *SMALLEST))
def test_one_image_in_bfloat16(call: OperatorCall, seed: int) -> None:
    """Numbers and the order of threads differ from seed to seed."""
    (launch,) = check(call.op, arguments(call, 1, seed=seed, dtype=torch.bfloat16), capability=90, seed=seed)
    assert launch.name == KERNELS[call.op]
    assert "BFloat16" in launch.kernel


ORDERS = ("240-480-160", "80-160-64", SHORT_STACK, "320-1000", "512-160-3-2", "160-160-3-1")
"""Ends of names: stacks of one block and of four, a cluster for an image, one for a tile, a convolution."""


@MORE_BFLOAT16
@pytest.mark.parametrize("seeds", [range(4, 8, 2), pytest.param(range(3, 9), marks=pytest.mark.thorough)], ids=str)
@pytest.mark.parametrize("call", thorough_but(ending(*ORDERS), SHORT_STACK, "512-160-3-2"))
def test_results_do_not_depend_on_the_order_of_threads(call: OperatorCall, seeds: range, dtype: torch.dtype) -> None:
    given = arguments(call, 1, dtype=dtype)
    expected, _ = run(call.op, given, capability=90)
    for seed in seeds:
        result, _ = run(call.op, given, capability=90, seed=seed)
        assert torch.equal(result, expected), seed


@MORE_BFLOAT16
@pytest.mark.parametrize("size", [pytest.param((7, 9), marks=pytest.mark.thorough), (13, 6)])
@pytest.mark.parametrize("call", thorough_but(few("conv2d_bias_act", "inverted_residual"), *CONVOLUTIONS, *RESIDUALS))
def test_images_of_other_sizes(call: OperatorCall, size: tuple[int, int], dtype: torch.dtype) -> None:
    """Of which tiles hang over the edge."""
    (launch,) = check(call.op, sized(call, 1, *size, dtype), capability=90, seed=size[0])
    assert launch.name == KERNELS[call.op]


@pytest.mark.parametrize(
    ("ends", "images"), [("64-256-64-3-1", 6), ("64-256-96-3-2", 5), ("16-512-160-3-2", 8), ("640-1000", 5)]
)
def test_where_few_images_end(ends: str, images: int) -> None:
    """Beyond it the kernel for every chip runs, which was faster."""
    (call,) = [region.values[0] for region in ending(ends)]
    names = [run(call.op, sized(call, batch, 2, 2), capability=90)[1][0].name for batch in (images, images + 1)]
    assert [name == KERNELS[call.op] for name in names] == [True, False]


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("factor", [thorough(30.0), 600.0])
@pytest.mark.parametrize("call", thorough_but(ending(SHORT_STACK, "240-480-160", "160-64"), SHORT_STACK))
def test_large_attention_scores(call: OperatorCall, factor: float, dtype: torch.dtype) -> None:
    """Up to about a million: the largest one of a row is subtracted before anything is rounded."""
    given = arguments(call, 1, dtype=dtype)
    weight = given[list(call.named).index("qkv_weight")]
    weight[:, : 2 * weight.shape[2]] *= factor
    check(call.op, given, capability=90)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("call", thorough_but(ending(SHORT_STACK, "240-480-160", "128-48"), SHORT_STACK))
def test_tokens_whose_mean_is_far_from_zero(call: OperatorCall, dtype: torch.dtype) -> None:
    given = list(arguments(call, 1, dtype=dtype))
    given[list(call.named).index("in_bias")] = torch.full((given[1].shape[0],), 100.0)
    check(call.op, tuple(given), capability=90)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_what_is_not_a_number_stays_in_its_sequence(dtype: torch.dtype) -> None:
    (call,) = [region.values[0] for region in ending(SHORT_STACK)]
    x, *rest = arguments(call, 1, dtype=dtype)
    expected, _ = run(call.op, (x, *rest), capability=90)
    x[0, 3, 0, 1] = torch.nan
    actual, _ = run(call.op, (x, *rest), capability=90)
    assert actual[0, :, ::2, 1::2].isnan().all()
    actual[0, :, ::2, 1::2] = expected[0, :, ::2, 1::2]
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("ends", ["80-8-8-80-3-1", "24-64-64-48-24-3-1", "128-16-16-512-160-3-2"])
def test_what_is_not_a_number_stays_where_it_is_seen(ends: str, dtype: torch.dtype) -> None:
    (call,) = [region.values[0] for region in ending(ends)]
    x, *rest = sized(call, 1, 12, 9, dtype)
    x[0, 3, 6, 7] = torch.nan
    y, _ = run(call.op, (x, *rest), capability=90)
    seen = (
        torch.nn.functional.conv2d(x.isnan().any(1, True).float(), torch.ones(1, 1, 3, 3), None, int(ends[-1]), 1) > 0
    )
    assert torch.equal(y.isnan(), seen.expand_as(y))


@pytest.mark.parametrize("ends", ["80-8-8-80-3-1", "128-16-16-512-160-3-2"])
def test_numbers_that_float16_does_not_hold(ends: str) -> None:
    (call,) = [region.values[0] for region in ending(ends)]
    x, *rest = sized(call, 1, 4, 5, torch.bfloat16)
    check(call.op, (1e20 * x, *rest), capability=90)
