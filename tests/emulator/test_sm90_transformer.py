"""Whole transformer stacks of compute capability 9.0, emulated: full widths against float64, orders of threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from emulator.run import Launch, check, run
from mobilevit_fast.kernels.cuda.sm90.transformer_stack import SHAPES
from testing.tiers import thorough, thorough_where
from testing.tolerance import rms_error
from tests.emulator.test_mobilevit_transformer import DTYPES, make

SIZES = {256: 32, 64: 16, 16: 8}
"""Of an image whose four sequences have so many tokens."""
SHORT, MIDDLE, LONG = (80, 96, 3), (64, 80, 4), (48, 64, 2)
"""The narrowest shape of each length of sequences."""
WIDE = (160, 240, 3)
"""Whose MLP has no registers for two parts at once."""
EVERY = [(shape, dtype) for shape in SHAPES for dtype in DTYPES]
OF_TEST = {(LONG, DTYPES[0]), (MIDDLE, DTYPES[1]), (SHORT, DTYPES[0]), (SHORT, DTYPES[1]), (WIDE, DTYPES[0])}


def lengths(*kept: tuple[int, int, int]) -> Any:
    """A test of a shape of each length of sequences, of which `make test` has some."""
    shapes = [
        shape if shape in kept else pytest.param(shape, marks=pytest.mark.thorough) for shape in (SHORT, MIDDLE, LONG)
    ]
    return pytest.mark.parametrize("shape", shapes, ids=str)


def size_of(shape: tuple[int, int, int]) -> int:
    return SIZES[SHAPES[shape].tokens]


def arguments_of(shape: tuple[int, int, int], image: tuple[int, int, int], **more: Any) -> tuple[Any, ...]:
    channels, features, layers = shape
    return make(channels, features, layers, image, more.pop("dtype", torch.float16), **more)


def check_stack(arguments: tuple[Any, ...], **options: Any) -> Launch:
    """Hold the kernel to the rule for errors, with two blocks."""
    (launch,) = check("mobilevit_transformer", arguments, capability=90, **{"tile": (2,), **options})
    assert launch.name == "TransformerStackSm90"
    return launch


def sharpened(arguments: tuple[Any, ...], by: float) -> tuple[Any, ...]:
    """With queries and keys that many times as large."""
    weight = arguments[5].clone()
    weight[:, : 2 * weight.shape[2]] *= by
    return *arguments[:5], weight, *arguments[6:]


@pytest.mark.parametrize(("shape", "dtype"), thorough_where(EVERY, lambda case: case not in OF_TEST), ids=str)
def test_every_shape(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Blocks with several tiles, or an odd number of images, which leaves half of the last tile without tokens."""
    size = size_of(shape)
    arguments = arguments_of(shape, (3 if size == 8 else 1, size, size), dtype=dtype)
    launch = check_stack(arguments, seed=shape[0])
    assert launch.blocks == 2
    assert launch.moved("x", "y") == 2 * arguments[0].nbytes + (size == 8) * 64 * shape[0] * 2


@lengths(LONG)
def test_results_do_not_depend_on_the_order_of_threads(shape: tuple[int, int, int]) -> None:
    """Nor on the number of blocks, which have one tile more than others."""
    size = size_of(shape)
    arguments = arguments_of(shape, ({8: 11, 16: 5, 32: 1}[size], size, size))
    results = []
    for seed, blocks in enumerate((2, 2, 4, 6)):
        result, (launch,) = run("mobilevit_transformer", arguments, capability=90, tile=(blocks,), seed=seed)
        assert launch.name == "TransformerStackSm90"
        results.append(result)
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@lengths(MIDDLE)
def test_images_that_are_not_square(shape: tuple[int, int, int]) -> None:
    size = size_of(shape)
    for height, width in ((size // 2, 2 * size), (4 * size, size // 4), (2, size * size // 2)):
        check_stack(arguments_of(shape, (1, height, width)), tile=(1,) if size == 8 else (2,))


@lengths(SHORT)
def test_without_biases(shape: tuple[int, int, int]) -> None:
    size = size_of(shape)
    check_stack(arguments_of(shape, (2, size, size), biased=False))


@pytest.mark.parametrize("images", [{8: 12, 16: 3, 32: 1}, thorough({8: 24, 16: 8, 32: 2})], ids=["few", "many"])
@pytest.mark.parametrize("sharpness", [thorough(5), thorough(30), 500])
@lengths(SHORT, MIDDLE)
def test_scores_of_any_size(shape: tuple[int, int, int], sharpness: float, images: dict[int, int]) -> None:
    """Up to a million, of which float16 holds no more than a fifteenth."""
    size = size_of(shape)
    arguments = sharpened(arguments_of(shape, (images[size], size, size)), sharpness)
    check_stack(arguments, measure=rms_error)


@lengths(SHORT)
def test_what_is_not_a_number_stays_in_its_sequence(shape: tuple[int, int, int]) -> None:
    size = size_of(shape)
    arguments = arguments_of(shape, (2, size, size))
    options = {"capability": 90, "tile": (2,)}
    expected, _ = run("mobilevit_transformer", arguments, **options)
    arguments[0][1, 3, 0, 1] = torch.nan
    actual, _ = run("mobilevit_transformer", arguments, **options)
    assert actual[1, :, ::2, 1::2].isnan().all()
    actual[1, :, ::2, 1::2] = expected[1, :, ::2, 1::2]
    assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("image", "more"),
    [
        ((1, 8, 8), {"activation": "relu"}),
        thorough(((1, 8, 8), {"out_activation": "none"})),
        ((1, 8, 8), {"patch": (1, 1)}),
        thorough(((1, 8, 8), {"patch": (2, 1)})),
        ((1, 8, 10), {}),
        thorough(((1, 8, 8), {"heads": 2})),
        ((1, 8, 8), {"hidden": 80}),
        thorough(((1, 8, 8), {"outputs": 32})),
    ],
    ids=str,
)
def test_what_other_kernels_compute(image: tuple[int, int, int], more: dict[str, Any]) -> None:
    launches = check("mobilevit_transformer", arguments_of(SHORT, image, **more), capability=90, processors=2)
    assert "TransformerStackSm90" not in {launch.name for launch in launches}


@pytest.mark.parametrize(("processors", "name"), [(10, "TransformerStackSm90"), (11, "Mobile")])
def test_few_tiles_are_left_to_other_kernels(processors: int, name: str) -> None:
    """On both sides of the line, with more images than there are kernels for few of them."""
    arguments = arguments_of(SHORT, (9, 8, 8))
    _, launches = run("mobilevit_transformer", arguments, capability=90, processors=processors)
    assert all(launch.name.startswith(name) for launch in launches)
