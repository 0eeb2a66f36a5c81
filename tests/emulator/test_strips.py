"""The inverted residual by strips, emulated: against float64, at any size, however rows are shared among warps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from emulator.run import Launch, check, run
from mobilevit_fast.kernels.cuda import strips
from mobilevit_fast.kernels.cuda.sm90 import rows
from tests.emulator.test_inverted_residual import make, model_shapes

SHAPES = [shape for shape in model_shapes() if shape.values[:3] in strips.CHANNELS]
DTYPES = [torch.float16, torch.bfloat16]
SMALL = {1: (24, 48, 24), 2: (48, 96, 64)}
"""Channels of a shape of each stride."""
MANY: dict[str, Any] = {"tile": [0]}
"""Whatever the tile: not to the kernels for few images."""


A100, OTHERS = 163, 99
"""KB of shared memory of a block: of compute capability 8.0, and of 8.6, 8.9 and 12.0."""
FEWER = {
    (A100, torch.float16): {(64, 256, 64): 5, (96, 384, 128): 0},
    (A100, torch.bfloat16): {(64, 256, 64): 5, (96, 384, 128): 0, (80, 320, 96): 0},
    (OTHERS, torch.float16): {
        (48, 192, 48): 4,
        (64, 256, 80): 4,
        **dict.fromkeys([(64, 256, 64), (64, 256, 96), (96, 384, 128), (80, 320, 96)], 0),
    },
    (OTHERS, torch.bfloat16): {
        (48, 192, 48): 4,
        (48, 192, 64): 7,
        **dict.fromkeys([(64, 256, 64), (64, 256, 80), (64, 256, 96), (96, 384, 128), (80, 320, 96)], 0),
    },
}
"""Warps by channels where shared memory has no room for all of a shape's; 0: the kernel for every shape runs."""


def arguments_of(stride: int, *size: int, dtype: torch.dtype = torch.float16, **more: Any) -> tuple[Any, ...]:
    """Arguments of the operator for a batch of this size, of the small shape of a stride."""
    return make(*SMALL[stride], size, stride, dtype, **more)  # type: ignore[arg-type]


def check_strips(arguments: tuple[Any, ...], **options: Any) -> Launch:
    """Hold the kernel to the rule for errors, on a chip that it has enough to do for."""
    (launch,) = check("inverted_residual", arguments, capability=90, **{"processors": 1, **MANY, **options})
    assert launch.name == "Strips"
    return launch


def test_every_shape_of_the_models_has_a_kernel_but_one() -> None:
    assert {shape.values[:3] for shape in model_shapes()} - strips.CHANNELS == {(128, 512, 160)}
    assert {shape.values[:3] for shape in SHAPES} == strips.CHANNELS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), SHAPES)
def test_shapes_of_the_models(
    channels: int, expanded: int, outputs: int, size: int, stride: int, dtype: torch.dtype
) -> None:
    """Images as wide as the model's, of a few rows; where they lie side by side, the last of them is missing.

    Those that go by whole rows at this width are narrower.
    """
    height = {128: 6 * stride, 16: 16}.get(size, 4 * stride)
    batch = 1 if size == 128 else 3
    width = size - 2 if (channels, expanded, outputs) in rows.PHASED else size
    check_strips(make(channels, expanded, outputs, (batch, height, width), stride, dtype), seed=size)


@pytest.mark.parametrize(("shared", "dtype"), FEWER, ids=str)
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), SHAPES)
def test_shared_memory_of_other_chips_decides(
    channels: int, expanded: int, outputs: int, size: int, stride: int, shared: int, dtype: torch.dtype
) -> None:
    """How many warps a block has, down to half of the shape's, and whether there are strips at all."""
    arguments = make(channels, expanded, outputs, (3, 16 * stride, 16), stride, dtype)
    (launch,) = check("inverted_residual", arguments, processors=1, shared_bytes=shared << 10, seed=size, **MANY)
    warps = FEWER[shared, dtype].get((channels, expanded, outputs))
    if warps == 0:
        assert launch.name == "InvertedResidual"
        return
    assert launch.name == "Strips"
    assert launch.threads == 32 * (warps or int(launch.kernel.split(",")[5].replace("(int)", "")))
    assert launch.shared_bytes <= shared << 10


@pytest.mark.parametrize("stride", [1, 2])
def test_results_are_the_same_on_every_chip(stride: int) -> None:
    arguments = make(48, 192, 48 if stride == 1 else 64, (2, 12, 32), stride, torch.bfloat16)
    results = [
        run("inverted_residual", arguments, capability=capability, shared_bytes=shared << 10, processors=2, **MANY)
        for capability, shared in ((90, 227), (80, A100), (80, OTHERS))
    ]
    threads = [launch.threads for _, (launch,) in results]
    assert threads[0] == threads[1] > threads[2]
    assert all(torch.equal(result, results[0][0]) for result, _ in results)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("stride", "size"),
    [
        *((1, size) for size in [(3, 9, 18), (60, 5, 2), (30, 3, 8), (2, 13, 46), (1, 24, 34), (40, 1, 16)]),
        *((2, size) for size in [(3, 10, 18), (50, 2, 2), (20, 6, 8), (2, 14, 46), (1, 12, 34), (5, 18, 16)]),
    ],
    ids=str,
)
def test_other_sizes(stride: int, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Rows that are no whole number of pairs, images narrower than a strip, strips that end inside of one."""
    check_strips(arguments_of(stride, *size, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_results_do_not_depend_on_how_rows_are_shared(stride: int, dtype: torch.dtype) -> None:
    """A warp may begin inside of an image. In any order of threads."""
    arguments = arguments_of(stride, 3, 24, 32, dtype=dtype)
    results = []
    for processors in (1, 2, 3):
        result, (launch,) = run(
            "inverted_residual", arguments, capability=90, processors=processors, seed=processors, **MANY
        )
        assert (launch.name, launch.blocks) == ("Strips", processors)
        results.append(result)
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_residual_is_added_where_it_is_asked_for(dtype: torch.dtype) -> None:
    *arguments, residual, activation = arguments_of(1, 2, 8, 32, dtype=dtype)
    assert residual
    check_strips((*arguments, False, activation))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_without_scales_and_biases(stride: int, dtype: torch.dtype) -> None:
    arguments = list(arguments_of(stride, 2, 12, 32, dtype=dtype))
    for i in (2, 3, 5, 6, 8, 9):
        arguments[i] = None
    check_strips(tuple(arguments))


@pytest.mark.parametrize("capability", [80, 90])
def test_others_go_to_the_kernel_of_every_shape(capability: int) -> None:
    """Few rows for the chip, odd sizes, other activations and dilations."""
    few, odd = arguments_of(1, 1, 16, 32), arguments_of(1, 2, 8, 31)
    relu, dilated = (arguments_of(1, 2, 8, 32, **more) for more in ({"activation": "relu"}, {"dilation": 2}))
    for arguments, processors in ((few, 132), (odd, 1), (relu, 1), (dilated, 1)):
        (launch,) = check("inverted_residual", arguments, capability=capability, processors=processors, **MANY)
        assert launch.name == "InvertedResidual"
    (launch,) = check("inverted_residual", arguments_of(2, 2, 9, 32), capability=capability, processors=1, **MANY)
    assert launch.name == "InvertedResidual"


def test_a_whole_image_moves_little_more_than_it_has_to() -> None:
    """128 columns of an image are read as 144; 16 warps read the rows above their own 18 once more."""
    x, *_ = arguments = make(16, 64, 32, (1, 32, 128), 1, torch.float16)
    launch = check_strips(arguments)
    assert launch.arrays["y"] == (0, 2 * x.nbytes)
    assert launch.moved("x") <= 1.125 * 1.125 * x.nbytes
