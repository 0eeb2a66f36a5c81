"""The CUDA kernel of the depthwise convolution, emulated: against float64, in several orders of threads, its counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from tests.emulator import run
from tests.tolerance import assert_within_twice


def check(
    channels: int,
    size: tuple[int, int, int],
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    activation: str = "silu",
    dtype: torch.dtype = torch.float16,
    padding: int | None = None,
    **options: Any,
) -> tuple[Tensor, dict[str, Any], int]:
    """The result, what the launch did, and the bytes of input and output."""
    generator = torch.Generator().manual_seed(channels + kernel)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = randn(size[0], channels, *size[1:]).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, scale, bias = (
        (randn(channels, 1, kernel, kernel) / kernel).to(dtype),
        1 + 0.2 * randn(channels),
        randn(channels),
    )
    pad = dilation * (kernel - 1) // 2 if padding is None else padding
    arguments = (x, weight, scale, bias, [stride] * 2, [pad] * 2, [dilation] * 2, activation)
    reference = ops.OPS["depthwise_conv2d"].reference
    with torch.no_grad():
        plain = reference(*arguments)
        exact = reference(*(a.double() if isinstance(a, Tensor) else a for a in arguments))
    actual, counts = run.depthwise_conv2d(arguments, **options)
    assert_within_twice(actual, plain, exact)
    return actual, counts, x.nbytes + actual.nbytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_windows(kernel: int, stride: int, dtype: torch.dtype) -> None:
    check(72, (2, 19, 17), kernel, stride, dtype=dtype, tile=8)
    check(8, (1, 18, 20), kernel, stride, dtype=dtype, tile=16)


@pytest.mark.parametrize("dilation", [2, 4])
def test_dilation(dilation: int) -> None:
    check(40, (1, 13, 21), 3, dilation=dilation, tile=8)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_paddings_and_activations(activation: str, padding: int) -> None:
    check(16, (3, 7, 5), 3, padding=padding, activation=activation, tile=8)


@pytest.mark.parametrize("tile", [8, 16])
def test_results_do_not_depend_on_the_order_of_threads(tile: int) -> None:
    results = [check(64, (1, 20, 20), 3, tile=tile, seed=seed)[0] for seed in range(3)]
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_whole_image_moves_little_more_than_it_has_to() -> None:
    """64 channels, 64x64 pixels: 1.25 times the bytes of input and output, halo included; no bank conflicts."""
    _, counts, least = check(64, (1, 64, 64), 3, tile=16, watch_banks=True)
    assert sum(counts["x"]) + sum(counts["y"]) <= 1.25 * least
    assert counts["conflicts"] == 0
