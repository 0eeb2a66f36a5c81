"""The CUDA kernel of the classifier head, emulated: against float64, in several orders of threads, its counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emulator.run import check, run

TILES = [[4, 1], [1, 1], [4, 3], [1, 2]]
"""Tiles of 16 pixels at a time, and blocks that share the outputs of an image."""
DTYPES = [torch.float16, torch.bfloat16]


def make(
    channels: int, expanded: int, size: tuple[int, int, int], dtype: torch.dtype, activation: str = "silu"
) -> tuple[Any, ...]:
    """Arguments of the operator with the thousand classes of the models."""
    generator = torch.Generator().manual_seed(channels + expanded)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = randn(size[0], channels, *size[1:]).to(dtype).contiguous(memory_format=torch.channels_last)
    expand = (randn(expanded, channels, 1, 1) / channels**0.5).to(dtype)
    weight = (randn(1000, expanded) / expanded**0.5).to(dtype)
    return x, expand, 1 + 0.2 * randn(expanded), 0.3 * randn(expanded), weight, randn(1000), activation


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "expanded"), [(80, 320), (96, 384), (160, 640)])
def test_shapes_of_the_models(channels: int, expanded: int, dtype: torch.dtype) -> None:
    """The heads of the three sizes, one image and two; bytes; bank conflicts only where rows end."""
    for batch in (1, 2):
        arguments = make(channels, expanded, (batch, 8, 8), dtype)
        (launch,) = check("classifier_head", arguments, processors=132 if batch == 1 else 1, watch_banks=batch == 1)
        assert launch.arrays["mean"] == (0, batch * expanded * 2)
        assert launch.arrays["x"] == (arguments[0].nbytes * launch.blocks // batch, 0)
        if batch == 2:  # on a chip that they fill
            assert launch.moved("x", "mean") == arguments[0].nbytes + batch * expanded * 2
        assert launch.conflicts <= 64 * launch.blocks  # a pixel's row may end among the eight pieces copied together


@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_pixels_that_come_after_one_another(activation: str, tile: list[int]) -> None:
    """Images of no whole number of tiles; what lies beyond the last pixel counts for nothing."""
    check("classifier_head", make(24, 40, (2, 11, 13), torch.float16, activation), tile=tile)


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_results_do_not_depend_on_the_order_of_threads(tile: list[int]) -> None:
    arguments = make(40, 72, (2, 9, 9), torch.bfloat16)
    results = [run("classifier_head", arguments, tile=tile, seed=seed)[0] for seed in range(4)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


def test_many_channels_and_outputs() -> None:
    """Few pixels at a time where channels are many; several blocks where outputs are."""
    check("classifier_head", make(520, 24, (1, 4, 5), torch.float16))
    (launch,) = check("classifier_head", make(8, 4112, (1, 3, 3), torch.float16), processors=1)
    assert launch.blocks == 2
