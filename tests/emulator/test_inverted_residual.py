"""The CUDA kernel of the inverted residual, emulated: against float64, in several orders of threads, its counts."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import emulator.run
from emulator.run import Launch
from mobilevit_fast.config import PRESETS
from mobilevit_fast.kernels.cuda.inverted_residual import shared_bytes
from testing.shapes import preset_calls
from testing.tiers import thorough_where

DTYPES = [torch.float16, torch.bfloat16]
run, check = (partial(call, tile=[1]) for call in (emulator.run.run, emulator.run.check))
"""By the kernel for every shape, where those of the models have others."""
SIZES = range(3)


def make(
    channels: int, expanded: int, outputs: int, size: tuple[int, int, int], stride: int, dtype: torch.dtype, **more: Any
) -> tuple[Any, ...]:
    """Arguments of the operator, with scales and biases."""
    generator = torch.Generator().manual_seed(channels * 7 + outputs)

    def randn(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    def affine(count: int) -> tuple[Tensor, Tensor]:
        return 1 + 0.2 * torch.randn(count, generator=generator), 0.3 * torch.randn(count, generator=generator)

    x = randn(size[0], channels, *size[1:]).contiguous(memory_format=torch.channels_last)
    dilation = more.get("dilation", 1)
    return (
        x,
        *(randn(expanded, channels, 1, 1, scale=channels**-0.5), *affine(expanded)),
        *(randn(expanded, 1, 3, 3, scale=1 / 3), *affine(expanded)),
        *(randn(outputs, expanded, 1, 1, scale=expanded**-0.5), *affine(outputs)),
        [stride, stride],
        [dilation, dilation],
        stride == 1 and channels == outputs,
        more.get("activation", "silu"),
    )


def chip_for(size: int, arguments: tuple[Any, ...]) -> dict[str, int]:
    """A chip of which a size of tiles is chosen, where the shape has it and sizes differ in their number of tiles."""
    (batch, _, *image), (stride, _) = arguments[0].shape, arguments[10]
    height, width = (-(-extent // stride) for extent in image)
    large = batch * -(-height // 8) * -(-width // 16)
    return {"processors": (0, large // 2 + 1, 1 << 20)[size]}


def tile_of(launch: Launch) -> str:
    """Height and width of the tile, from the kernel's name."""
    return "x".join(part.strip() for part in launch.kernel.split(",")[3:5])


def separable(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The last part of an inverted residual as a depthwise separable convolution with two activations."""
    x, parameters, stride, dilation = arguments[0], arguments[4:10], arguments[10], arguments[11]
    expanded = torch.randn(x.shape[0], parameters[0].shape[0], *x.shape[2:]).to(x.dtype)
    expanded = expanded.contiguous(memory_format=torch.channels_last)
    return expanded, *parameters, stride, dilation, dilation, "silu", "relu"


def model_shapes() -> list[Any]:
    """Channels, expanded channels, outputs, image size and stride of every inverted residual of the three sizes."""
    found = {}
    for preset in PRESETS:
        for call in preset_calls(preset, 1, 256, torch.float16):
            if call.op == "inverted_residual":
                shape = call.shape
                key = tuple(shape[name] for name in ("inputs", "expanded", "outputs", "height", "stride"))
                found[key] = f"{preset}-" + "-".join(map(str, key))
    return [pytest.param(*key, id=name) for key, name in found.items()]


IN_BFLOAT16 = ["xx_small-16-32-16-128-1", "xx_small-24-48-48-64-2", "x_small-32-128-48-128-2"]
"""Shapes of `make test` in the other type, one for each width of a narrow kernel."""
TWICE = ["x_small-16-64-32-128-1", "x_small-48-192-64-64-2", "x_small-64-256-80-32-2"]
"""Shapes of which another has the same kernel and stride."""


def model_shapes_and_types() -> list[Any]:
    """The shapes of ``model_shapes`` in each type."""
    return [
        pytest.param(
            *shape.values,
            dtype,
            id=f"{shape.id}-{dtype}",
            marks=[pytest.mark.thorough]
            * (shape.id not in IN_BFLOAT16 if dtype == torch.bfloat16 else shape.id in TWICE),
        )
        for shape in model_shapes()
        for dtype in DTYPES
    ]


@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride", "dtype"), model_shapes_and_types())
def test_shapes_of_the_models(
    channels: int, expanded: int, outputs: int, size: int, stride: int, dtype: torch.dtype
) -> None:
    """On images of a few tiles, with edges; narrower ones for many channels."""
    width = 17 if channels < 64 else 9
    arguments = make(channels, expanded, outputs, (1, 9 * stride, width * stride), stride, dtype)
    for tile in (0, 1) if dtype == torch.float16 else (1, 2):
        (launch,) = check("inverted_residual", arguments, seed=size + tile, **chip_for(tile, arguments))
        assert f", {-(-channels // 16) * 16}>" in launch.kernel.replace("(int)", ""), "not the kernel of its own"
    check("depthwise_separable_conv2d", separable(arguments), seed=size)


def test_every_size_of_tiles_is_chosen_for_some_chip() -> None:
    arguments = make(16, 32, 16, (1, 16, 32), 1, torch.float16)
    chosen = [tile_of(check("inverted_residual", arguments, **chip_for(tile, arguments))[0]) for tile in SIZES]
    assert chosen == ["8x16", "8x8", "4x8"]
    (small,) = check("inverted_residual", arguments, processors=0, shared_bytes=12000)
    assert tile_of(small) == "4x8"


def assert_same_for_every_order(op: str, arguments: tuple[Any, ...], **chip: int) -> None:
    results = [run(op, arguments, seed=seed, **chip)[0] for seed in range(4)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize(
    ("channels", "stride", "tile"),
    thorough_where(itertools.product((24, 40), (1, 2), SIZES), lambda case: case[0] == 40 and case[2] != 1),
)
def test_results_do_not_depend_on_the_order_of_threads(channels: int, stride: int, tile: int) -> None:
    """By a kernel that is compiled for its channels, and by the general one."""
    arguments = make(channels, 48, 24, (2, 10, 19), stride, torch.float16)
    assert_same_for_every_order("inverted_residual", arguments, **chip_for(tile, arguments))
    assert_same_for_every_order("depthwise_separable_conv2d", separable(arguments))


@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize("tile", SIZES)
def test_dilation(tile: int, dilation: int) -> None:
    arguments = make(16, 32, 16, (1, 11, 18), 1, torch.float16, dilation=dilation)
    check("inverted_residual", arguments, **chip_for(tile, arguments))


@pytest.mark.parametrize("padding", [0, 2])
def test_other_paddings_of_the_separable_convolution(padding: int) -> None:
    x, *rest = separable(make(8, 24, 40, (2, 9, 10), 1, torch.float16))
    check("depthwise_separable_conv2d", (x, *rest[:7], [padding, padding], *rest[8:]))


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_activations(activation: str) -> None:
    check("inverted_residual", make(8, 24, 40, (3, 5, 4), 1, torch.float16, activation=activation))


@pytest.mark.parametrize(("channels", "expanded", "outputs"), [(8, 8, 8), (40, 72, 8), (8, 104, 232), (200, 40, 200)])
def test_any_multiples_of_eight(channels: int, expanded: int, outputs: int) -> None:
    """232 outputs are more than a block has sums for."""
    arguments = make(channels, expanded, outputs, (1, 4, 7), 1, torch.bfloat16)
    for tile in (1, 2):
        check("inverted_residual", arguments, **chip_for(tile, arguments))
    check("depthwise_separable_conv2d", separable(arguments))


@pytest.mark.parametrize(("channels", "stride", "dilation"), [(64, 1, 1), (128, 2, 1), (96, 1, 4), (24, 1, 2)])
def test_shared_memory_is_what_the_rule_says(channels: int, stride: int, dilation: int) -> None:
    """On a chip that has no more, and so gets the tiles that take the least."""
    arguments = make(channels, 32, 8, (1, 8, 16), stride, torch.float16, dilation=dilation)
    for op, least, given in (
        ("inverted_residual", shared_bytes(channels, stride, dilation), arguments),
        ("depthwise_separable_conv2d", shared_bytes(0, stride, dilation), separable(arguments)),
    ):
        (launch,) = check(op, given, shared_bytes=least)
        assert launch.shared_bytes == least


def test_a_whole_image_moves_little_more_than_it_has_to() -> None:
    """64 channels, 64x64 pixels: 1.25 times the bytes of input and output, halo included.

    Expanded channels, 256 in MobileViT-S, stay in a block, and 64 of them take a fourth of the time.
    """
    x, *_ = arguments = make(64, 64, 64, (1, 64, 64), 1, torch.float16)
    (launch,) = check("inverted_residual", arguments, processors=1)
    assert tile_of(launch) == "8x16"
    assert launch.arrays["y"] == (0, x.nbytes)
    assert launch.moved("x", "y") <= 1.25 * 2 * x.nbytes
