"""The CUDA kernel of the depthwise convolution, emulated: against float64, in several orders of threads, its counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emulator.run import check, run

LARGE, SMALL = {"processors": 0}, {"processors": 1 << 20}
"""Chips of which tiles of 16 and of 8 pixels are chosen."""


def make(
    channels: int,
    size: tuple[int, int, int],
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    activation: str = "silu",
    dtype: torch.dtype = torch.float16,
    padding: int | None = None,
) -> tuple[Any, ...]:
    """Arguments of the operator."""
    generator = torch.Generator().manual_seed(channels + kernel)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = randn(size[0], channels, *size[1:]).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = (randn(channels, 1, kernel, kernel) / kernel).to(dtype)
    pad = dilation * (kernel - 1) // 2 if padding is None else padding
    affine = 1 + 0.2 * randn(channels), randn(channels)
    return x, weight, *affine, [stride] * 2, [pad] * 2, [dilation] * 2, activation


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_windows(kernel: int, stride: int, dtype: torch.dtype) -> None:
    check("depthwise_conv2d", make(72, (2, 19, 17), kernel, stride, dtype=dtype), **SMALL)
    check("depthwise_conv2d", make(8, (1, 18, 20), kernel, stride, dtype=dtype), **LARGE)


@pytest.mark.parametrize("dilation", [2, 4])
def test_dilation(dilation: int) -> None:
    check("depthwise_conv2d", make(40, (1, 13, 21), 3, dilation=dilation), **SMALL)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_paddings_and_activations(activation: str, padding: int) -> None:
    check("depthwise_conv2d", make(16, (3, 7, 5), 3, padding=padding, activation=activation))


@pytest.mark.parametrize("chip", [LARGE, SMALL], ids=["large", "small"])
def test_results_do_not_depend_on_the_order_of_threads(chip: dict[str, int]) -> None:
    arguments = make(64, (1, 20, 20), 3)
    results = [run("depthwise_conv2d", arguments, seed=seed, **chip)[0] for seed in range(3)]
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_whole_image_moves_little_more_than_it_has_to() -> None:
    """64 channels, 64x64 pixels: 1.25 times the bytes of input and output, halo included; no bank conflicts."""
    x, *_ = arguments = make(64, (1, 64, 64), 3)
    (launch,) = check("depthwise_conv2d", arguments, watch_banks=True, **LARGE)
    assert launch.moved("x", "y") <= 1.25 * 2 * x.nbytes
    assert launch.conflicts == 0
