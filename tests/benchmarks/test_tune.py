"""The search for tiles, with a made-up clock: measuring itself needs a GPU."""

import math

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import tune
from benchmarks.__main__ import app
from mobilevit_fast.kernels.triton.tiles import Tile


def test_the_search_finds_the_best_tile_of_a_valley() -> None:
    measured: list[Tile] = []

    def milliseconds(tile: Tile) -> float:
        measured.append(tile)
        if tile["BLOCK_M"] > 128:
            return math.inf
        return 1 + abs(math.log2(tile["BLOCK_M"] / 128)) + abs(tile["num_stages"] - 4) + 0.1 * tile["num_warps"]

    start = {"BLOCK_M": 16, "BLOCK_D": 64, "num_warps": 4, "num_stages": 2}
    best, least = tune.descend(start, milliseconds)
    assert best == {"BLOCK_M": 128, "BLOCK_D": 64, "num_warps": 1, "num_stages": 4}
    assert least == pytest.approx(1.1)
    assert len({tuple(tile.items()) for tile in measured}) == len(measured)


def test_neighbours_differ_in_one_number_and_stay_within_limits() -> None:
    tile = {"BLOCK_M": 16, "BLOCK_D": 64, "num_warps": 16, "num_stages": 1}
    found = list(tune.neighbours(tile))
    assert found == [{**tile, "BLOCK_M": 32}, {**tile, "num_warps": 8}, {**tile, "num_stages": 2}]


def test_launches_have_the_strides_of_the_model() -> None:
    launches = tune.launches_of("xx_small", 2, torch.float16, torch.device("meta"))
    names = {one.kernel.__name__ for one in launches}
    assert names == {
        "conv2d_kernel",
        "depthwise_project_kernel",
        "norm_linear_kernel",
        "attention_kernel",
        "norm_mlp_kernel",
        "expand_mean_kernel",
    }
    assert {one.mode for one in launches} == {"float16"}


def test_launches_of_a_forward_are_few() -> None:
    """Stem, two or one for each inverted residual, 4·L + 4 for each block of L layers, one for the head."""
    launches = tune.launches_of("small", 1, torch.float16, torch.device("meta"))
    assert len(launches) == 1 + 3 * 2 + 4 + 4 * (2 + 4 + 3) + 3 * 4 + 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it would measure")
def test_without_a_gpu_it_says_so() -> None:
    outcome = CliRunner().invoke(app, ["tune"])
    assert outcome.exit_code == 1
    assert "expected a GPU that torch can use, found none" in str(outcome.exception)
