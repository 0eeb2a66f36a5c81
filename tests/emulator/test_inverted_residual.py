"""The CUDA kernel of the inverted residual, emulated: against float64, in several orders of threads, its counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.shapes import preset_calls
from mobilevit_fast import ops
from mobilevit_fast.config import PRESETS
from tests.emulator import run
from tests.tolerance import assert_within_twice

TILES = range(run.emulated.tile_sizes)
DTYPES = [torch.float16, torch.bfloat16]


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


def check(arguments: tuple[Any, ...], **options: Any) -> dict[str, Any]:
    reference = ops.OPS["inverted_residual"].reference
    with torch.no_grad():
        plain = reference(*arguments)
        exact = reference(*(a.double() if isinstance(a, Tensor) else a for a in arguments))
    actual, counts = run.inverted_residual(arguments, **options)
    assert_within_twice(actual, plain, exact)
    return counts


def check_separable(arguments: tuple[Any, ...], tile: int) -> dict[str, Any]:
    """The last part of an inverted residual as a depthwise separable convolution with two activations."""
    x, parameters, stride, dilation = arguments[0], arguments[4:10], arguments[10], arguments[11]
    expanded = torch.randn(x.shape[0], parameters[0].shape[0], *x.shape[2:]).to(x.dtype)
    expanded = expanded.contiguous(memory_format=torch.channels_last)
    separable = (expanded, *parameters, stride, dilation, dilation, "silu", "relu")
    reference = ops.OPS["depthwise_separable_conv2d"].reference
    with torch.no_grad():
        plain = reference(*separable)
        exact = reference(*(a.double() if isinstance(a, Tensor) else a for a in separable))
    actual, counts = run.depthwise_separable_conv2d(separable, tile=tile)
    assert_within_twice(actual, plain, exact)
    return counts


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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), model_shapes())
def test_shapes_of_the_models(
    channels: int, expanded: int, outputs: int, size: int, stride: int, dtype: torch.dtype
) -> None:
    """On images of a few tiles, with edges."""
    tile = channels % 3
    arguments = make(channels, expanded, outputs, (1, 9, 17), stride, dtype)
    check(arguments, tile=tile, seed=size)
    check_separable(arguments, tile)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("stride", [1, 2])
def test_results_do_not_depend_on_the_order_of_threads(stride: int, tile: int) -> None:
    arguments = make(24, 48, 24, (2, 10, 11), stride, torch.float16)
    results = [run.inverted_residual(arguments, tile=tile, seed=seed)[0] for seed in range(4)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dilation", [2, 4])
@pytest.mark.parametrize("tile", TILES)
def test_dilation(tile: int, dilation: int) -> None:
    check(make(16, 32, 16, (1, 11, 13), 1, torch.float16, dilation=dilation), tile=tile)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_activations(activation: str) -> None:
    check(make(8, 24, 40, (3, 5, 4), 1, torch.float16, activation=activation), tile=2)


@pytest.mark.parametrize(("channels", "expanded", "outputs"), [(8, 8, 8), (40, 72, 8), (8, 104, 160), (72, 40, 72)])
def test_any_multiples_of_eight(channels: int, expanded: int, outputs: int) -> None:
    for tile in TILES:
        arguments = make(channels, expanded, outputs, (1, 4, 7), 1, torch.bfloat16)
        check(arguments, tile=tile)
        check_separable(arguments, tile)


def test_a_whole_image_moves_little_more_than_it_has_to() -> None:
    """64 channels, 64x64 pixels, as in MobileViT-S: 1.25 times the bytes of input and output, halo included."""
    x, *_ = arguments = make(64, 256, 64, (1, 64, 64), 1, torch.float16)
    counts = check(arguments, tile=0)
    moved = sum(counts["x"]) + sum(counts["y"])
    assert counts["y"] == (0, x.nbytes)
    assert moved <= 1.25 * 2 * x.nbytes
