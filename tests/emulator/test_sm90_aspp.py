"""The convolutions of atrous spatial pyramid pooling on compute capability 9.0, emulated."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from emulator.run import check, chip, run, weight_bytes
from tests.emulator.test_aspp import make

BOTH = [torch.float16, torch.bfloat16]
RATES = (6, 12, 18)


def kernels(arguments: tuple[Any, ...], **options: Any) -> Counter[str]:
    """How many launches a call has of each kernel, once its result is held to the rule for errors."""
    return Counter(launch.name for launch in check("aspp", arguments, capability=90, **options))


@pytest.mark.parametrize("size", [(1, 16, 16), (3, 9, 21), (2, 17, 7), (1, 1, 1)])
@pytest.mark.parametrize(("channels", "dtype"), [(80, BOTH[0]), (96, BOTH[1]), (160, BOTH[0])])
def test_widths_of_the_models(channels: int, dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    """Tiles beyond every edge, several of a block; taps that see nothing at all."""
    arguments = make(channels, 256, 256, size, dtype, rates=RATES)
    assert kernels(arguments, processors=3, seed=channels) == {"AsppSums": 1, "AsppImageBias": 1, "AtrousSm90": 2}


@pytest.mark.parametrize(("rates", "activation"), [((1,), "silu"), ((2, 3), "none")])
def test_other_rates_and_activations(rates: tuple[int, ...], activation: str) -> None:
    assert kernels(make(32, 256, 256, (2, 8, 19), rates=rates, activation=activation))["AtrousSm90"] == 2


def test_results_do_not_depend_on_the_order_of_threads() -> None:
    arguments = make(48, 256, 256, (2, 10, 12), rates=RATES)
    results = [run("aspp", arguments, seed=seed, processors=2, capability=90)[0] for seed in range(3)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


def test_taps_in_the_padding_cost_nothing() -> None:
    """At 16x16 pixels and a rate of 18 the middle tap alone sees the image."""
    arguments = make(32, 256, 256, (1, 16, 16), rates=(18,))
    _, _, branches, project = check("aspp", arguments, capability=90)
    pixels = 16 * 16
    assert branches.wgmma_macs == pixels * 256 * 32 * 2  # of the 1x1 convolution, and of one tap
    assert project.wgmma_macs == pixels * 256 * 512
    assert branches.arrays["y"] == (0, pixels * 512 * 2)
    assert project.arrays["image_bias"][0] > 0


@pytest.mark.parametrize(
    ("channels", "features", "outputs", "rates"),
    [(24, 256, 256, RATES), (32, 128, 256, RATES), (32, 256, 128, RATES), (32, 256, 256, (1, 2, 3, 4))],
    ids=["channels", "features", "outputs", "rates"],
)
def test_what_other_kernels_run(channels: int, features: int, outputs: int, rates: tuple[int, ...]) -> None:
    arguments = make(channels, features, outputs, (1, 5, 6), rates=rates)
    assert kernels(arguments)["Conv2dBiasAct"] == len(rates) + 2
    with chip(capability=90):
        packed = weight_bytes("aspp", arguments)
    assert packed == weight_bytes("aspp", arguments)


def test_convolutions_that_have_kernels_of_their_own_elsewhere() -> None:
    """A pyramid of 96 channels and features: its dense convolutions are packed as the pyramid's."""
    assert kernels(make(96, 96, 96, (1, 5, 6), rates=(1, 2)))["Conv2dBiasAct"] == 4
