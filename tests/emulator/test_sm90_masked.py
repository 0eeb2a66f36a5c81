"""Transformer stacks of compute capability 9.0 whose sequences have fewer tokens than the kernel has room for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from emulator.run import check, run
from mobilevit_fast.kernels.cuda.sm90.transformer_stack import SHAPES
from testing.tiers import thorough, thorough_where
from testing.tolerance import rms_error
from tests.emulator.test_mobilevit_transformer import DTYPES
from tests.emulator.test_sm90_transformer import (
    EVERY,
    LONG,
    MIDDLE,
    OF_TEST,
    SHORT,
    arguments_of,
    check_stack,
    lengths,
    sharpened,
)

KEPT = {*OF_TEST, (LONG, DTYPES[1])}
IMAGES = {256: (28, 28), 64: (14, 14), 16: (6, 6)}
"""Sizes of an image by the room of its sequences: 196 of 256 tokens, 49 of 64, 9 of 16."""
OTHERS = {256: [(30, 34), (24, 24), (20, 20)], 64: [(2, 126), (12, 12), (4, 14)], 16: [(6, 10), (8, 6), (2, 8)]}
"""All places but one, some, and as few tokens as are taken: 255, 144 and 100; 63, 36 and 14; 15, 12 and 4."""


def image_of(shape: tuple[int, int, int], images: int = 1) -> tuple[int, int, int]:
    return (images, *IMAGES[SHAPES[shape].tokens])


@pytest.mark.parametrize(("shape", "dtype"), thorough_where(EVERY, lambda case: case not in KEPT), ids=str)
def test_every_shape(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    images = 3 if SHAPES[shape].tokens == 16 else 1
    launch = check_stack(arguments_of(shape, image_of(shape, images), dtype=dtype), seed=shape[0])
    assert "Masked<" in launch.kernel


@pytest.mark.parametrize("number", [thorough(0), thorough(1), 2])
@pytest.mark.parametrize("shape", [SHORT, MIDDLE, LONG], ids=str)
def test_other_lengths(shape: tuple[int, int, int], number: int) -> None:
    check_stack(arguments_of(shape, (1, *OTHERS[SHAPES[shape].tokens][number])), tile=(2,))


@lengths(SHORT, LONG)
def test_results_do_not_depend_on_the_order_of_threads(shape: tuple[int, int, int]) -> None:
    arguments = arguments_of(shape, image_of(shape, {256: 1, 64: 5, 16: 11}[SHAPES[shape].tokens]))
    results = []
    for seed, blocks in enumerate((2, 2, 4)):
        result, (launch,) = run("mobilevit_transformer", arguments, capability=90, tile=(blocks,), seed=seed)
        assert "Masked<" in launch.kernel
        results.append(result)
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("sharpness", [thorough(30), 500])
@pytest.mark.parametrize("dtype", [DTYPES[0], thorough(DTYPES[1])], ids=str)
@lengths(SHORT, LONG)
def test_scores_of_any_size(shape: tuple[int, int, int], dtype: torch.dtype, sharpness: float) -> None:
    """Beside which what is masked is as far below. In a single image two keys that nearly tie may decide."""
    images = {256: 2, 64: 3, 16: 12}[SHAPES[shape].tokens]
    arguments = sharpened(arguments_of(shape, image_of(shape, images), dtype=dtype), sharpness)
    check_stack(arguments, measure=rms_error)


@lengths(SHORT, LONG)
def test_what_is_not_a_number_stays_in_its_sequence(shape: tuple[int, int, int]) -> None:
    """Also where its token is the last one, whose copies fill the places that are left."""
    options: dict[str, Any] = {"capability": 90, "tile": (2,)}
    arguments = arguments_of(shape, image_of(shape, 2))
    expected, _ = run("mobilevit_transformer", arguments, **options)
    arguments[0][0, 3, -2, -1] = torch.nan
    actual, _ = run("mobilevit_transformer", arguments, **options)
    assert actual[0, :, ::2, 1::2].isnan().all()
    actual[0, :, ::2, 1::2] = expected[0, :, ::2, 1::2]
    assert torch.equal(actual, expected)


def test_much_shorter_and_longer_sequences_are_left_to_other_kernels() -> None:
    """Of 3, 4 and 17 tokens."""
    for image, name in (((2, 2, 6), "Mobile"), ((2, 2, 8), "TransformerStackSm90"), ((2, 2, 34), "Mobile")):
        arguments = arguments_of(SHORT, image, dtype=torch.bfloat16)
        launches = check("mobilevit_transformer", arguments, capability=90, processors=2)
        assert all(launch.name.startswith(name) for launch in launches), (image, launches)
