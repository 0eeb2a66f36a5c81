"""The inverted residual by whole rows, emulated: against float64, wherever multiprocessors' shares begin and end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from emulator.run import Launch, check, run
from mobilevit_fast.kernels.cuda.sm90 import rows
from tests.emulator.test_inverted_residual import make, model_shapes

SHAPES = [shape for shape in model_shapes() if shape.values[:3] in rows.PHASED]
OPTIONS: dict[str, Any] = {"capability": 90, "tile": (0,)}
"""With a tile, which this kernel has none to choose of, few images do not go to the kernel for few."""
SMALL = {1: (48, 192, 48, 64, 1), 2: (96, 384, 128, 32, 2)}
"""A shape of each stride: channels, expanded channels, outputs, columns of the image, stride."""


def arguments_of(shape: tuple[int, ...], batch: int, height: int, **more: Any) -> tuple[Any, ...]:
    """Arguments of the operator for images of some height."""
    channels, expanded, outputs, width, stride = shape
    dtype = more.pop("dtype", torch.float16)
    return make(channels, expanded, outputs, (batch, height, width), stride, dtype, **more)


def check_rows(arguments: tuple[Any, ...], **options: Any) -> Launch:
    """Hold the kernel to the rule for errors, on a chip that it has enough to do for."""
    (launch,) = check("inverted_residual", arguments, **{"processors": 1, **OPTIONS, **options})
    assert launch.name == "Rows"
    return launch


def test_shapes_are_those_of_models() -> None:
    assert {shape.values[:3] for shape in SHAPES} == set(rows.PHASED)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("channels", "expanded", "outputs", "size", "stride"), SHAPES)
def test_every_shape(channels: int, expanded: int, outputs: int, size: int, stride: int, seed: int) -> None:
    """Three images in shares that begin and end inside of them, in several orders of threads."""
    height = 9 if stride == 1 else 16
    shape = (channels, expanded, outputs, size, stride)
    launch = check_rows(arguments_of(shape, 3, height), processors=4 if stride == 1 else 7, seed=seed)
    assert launch.blocks == (4 if stride == 1 else 7)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("batch", "rows_of_results"), [(7, 1), (4, 2), (3, 5)])
def test_images_of_few_rows(stride: int, batch: int, rows_of_results: int) -> None:
    """A row of results may be the first and the last of its image."""
    check_rows(arguments_of(SMALL[stride], batch, rows_of_results * stride))


@pytest.mark.parametrize("stride", [1, 2])
def test_results_do_not_depend_on_where_shares_end(stride: int) -> None:
    arguments = arguments_of(SMALL[stride], 3, 12)
    results = []
    for processors in (1, 2, 4, 5):
        result, (launch,) = run("inverted_residual", arguments, processors=processors, seed=processors, **OPTIONS)
        assert (launch.name, launch.blocks) == ("Rows", processors)
        results.append(result)
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_residual_is_added_where_it_is_asked_for() -> None:
    *arguments, residual, activation = arguments_of(SMALL[1], 2, 6)
    assert residual
    check_rows((*arguments, False, activation))


@pytest.mark.parametrize("stride", [1, 2])
def test_without_scales_and_biases(stride: int) -> None:
    arguments = list(arguments_of(SMALL[stride], 2, 8))
    for i in (2, 3, 5, 6, 8, 9):
        arguments[i] = None
    check_rows(tuple(arguments))


@pytest.mark.parametrize("processors", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_input_is_read_once_but_for_rows_beside_a_share(stride: int, processors: int) -> None:
    """A share that begins inside of an image reads the row above it; of stride 1, one that ends there the row below."""
    x, *_ = arguments = arguments_of(SMALL[stride], 1, 24)
    launch = check_rows(arguments, processors=processors)
    row = x.nbytes // 24
    more = (processors - 1) * (2 if stride == 1 else 1)
    residual = x.nbytes if stride == 1 else 0
    assert launch.arrays["x"] == (x.nbytes + more * row + residual, 0)
    results = x.nbytes if stride == 1 else 12 * 16 * 128 * 2
    assert launch.arrays["y"] == (0, results)


def test_others_go_to_other_kernels() -> None:
    """Few rows for the chip, other widths, odd heights, types and activations."""
    few, narrow = arguments_of(SMALL[1], 1, 12), arguments_of((*SMALL[1][:3], 48, 1), 2, 8)
    odd = arguments_of(SMALL[2], 2, 9)
    bfloat16 = arguments_of(SMALL[1], 2, 8, dtype=torch.bfloat16)
    relu = arguments_of(SMALL[1], 2, 8, activation="relu")
    for arguments, processors in ((few, 132), (narrow, 1), (odd, 1), (bfloat16, 1), (relu, 1)):
        (launch,) = check("inverted_residual", arguments, processors=processors, **OPTIONS)
        assert launch.name != "Rows"
