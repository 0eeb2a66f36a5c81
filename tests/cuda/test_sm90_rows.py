"""Inverted residuals by whole rows at the numbers of images that take them, on a GPU of compute capability 9.0."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.cuda.conftest import EMULATED
from tests.cuda.test_strips import OP, check, make

pytestmark = pytest.mark.skipif(EMULATED, reason="whole batches take the emulator hours")

SHAPES = [
    pytest.param(*shape, id="-".join(map(str, shape)))
    for shape in (
        *((64, 256, 64, 64, 1), (96, 384, 128, 32, 2), (128, 512, 160, 16, 2)),  # S
        (48, 192, 48, 64, 1),  # XS
    )
]
"""Channels, expanded channels, outputs, columns of the image, stride."""


@pytest.mark.parametrize("batch", [8, 33, 100, 128, 131, 132, 133, 200, 256, 301])
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), SHAPES)
def test_shares_of_rows(channels: int, expanded: int, outputs: int, size: int, stride: int, batch: int) -> None:
    """Multiprocessors have equal shares of all rows, which begin and end inside of images or between them."""
    check(make(channels, expanded, outputs, (batch, size, size), stride))


@pytest.mark.parametrize("rows", [2, 6, 30, 100])
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), SHAPES)
def test_images_of_other_heights(channels: int, expanded: int, outputs: int, size: int, stride: int, rows: int) -> None:
    check(make(channels, expanded, outputs, (16384 // rows + 1, rows, size), stride))


@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), SHAPES)
def test_an_image_does_not_depend_on_its_place(
    channels: int, expanded: int, outputs: int, size: int, stride: int
) -> None:
    """Elsewhere in the batch it is cut at other rows, or not at all."""
    x, *rest = make(channels, expanded, outputs, (256, size, size), stride)
    expected = OP("cuda", x, *rest)
    for shift in (1, 3, 100):
        moved: Any = x.roll(shift, 0)
        assert torch.equal(OP("cuda", moved, *rest).roll(-shift, 0), expected)


@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), SHAPES)
def test_results_are_the_same_every_time(channels: int, expanded: int, outputs: int, size: int, stride: int) -> None:
    arguments = make(channels, expanded, outputs, (257, size, size), stride)
    expected = OP("cuda", *arguments)
    assert all(torch.equal(OP("cuda", *arguments), expected) for _ in range(20))
