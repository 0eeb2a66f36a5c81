"""The CUDA kernels of atrous spatial pyramid pooling, emulated: against float64, in several orders of threads."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from emulator.run import check, emulated, run
from mobilevit_fast.ops import OPS
from mobilevit_fast.ops.registry import BackendError
from testing import samples
from testing.tiers import thorough_where

DTYPES = [torch.float16, torch.bfloat16]
VARIANTS = range(emulated.conv2d_variants)


def make(
    channels: int,
    features: int,
    outputs: int,
    size: tuple[int, int, int],
    dtype: torch.dtype = torch.float16,
    rates: tuple[int, ...] = (1, 2, 4),
    activation: str = "relu",
    affine: bool = True,
) -> tuple[Any, ...]:
    """Arguments of the operator on images of (batch, height, width)."""
    maker = samples._Maker(channels + features + outputs)

    def ends(*shape: int) -> tuple[Any, Any]:
        return (1 + 0.2 * maker(*shape), 0.3 * maker(*shape)) if affine else (None, None)

    atrous = torch.stack([maker.weight(features, channels, 3, 3) for _ in rates])
    branches = (
        *(maker.weight(features, channels, 1, 1).to(dtype), *ends(features)),
        *(atrous.to(dtype), *ends(len(rates), features)),
        *(maker.weight(features, channels, 1, 1).to(dtype), *ends(features)),
    )
    project = (maker.weight(outputs, (len(rates) + 2) * features, 1, 1).to(dtype), *ends(outputs))
    x = maker.image(size[0], channels, *size[1:], "channels_last").to(dtype)
    return x, *branches, *project, list(rates), activation


@pytest.mark.parametrize(
    ("channels", "dtype"),
    thorough_where(
        [(channels, dtype) for channels in (80, 96, 160) for dtype in DTYPES],
        lambda case: case[1] == torch.bfloat16 and case[0] != 80,
    ),
    ids=str,
)
def test_widths_of_the_models(channels: int, dtype: torch.dtype) -> None:
    """The heads of the three sizes: 256 features and outputs, rates that reach beyond the image and that do not."""
    arguments = make(channels, 256, 256, (1, 8, 9), dtype, rates=(6, 12, 18))
    launches = check("aspp", arguments, seed=channels)
    assert Counter(launch.name for launch in launches) == {"AsppSums": 1, "AsppImageBias": 1, "Conv2dBiasAct": 5}


def test_what_moves() -> None:
    """The image is read by every branch; the features of the branches are written once and read once."""
    x, *rest = make(16, 32, 32, (1, 16, 16))
    sums, biases, *branches, project = check("aspp", (x, *rest), processors=1)
    pixels = 16 * 16 * 2
    assert sums.arrays["x"] == branches[0].arrays["x"] == (x.nbytes, 0)
    assert all(x.nbytes <= launch.arrays["x"][0] <= 2 * x.nbytes for launch in branches[1:])
    assert biases.arrays["sums"] == (16 * 4, 0)
    assert biases.arrays["image_bias"] == (0, 32 * 4)
    assert all(launch.arrays["y"] == (0, 32 * pixels) for launch in (*branches, project))
    assert project.arrays["x"] == (4 * 32 * pixels, 0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_variant(dtype: torch.dtype, variant: int) -> None:
    """Tiles with pixels of several images, each of which has its own bias; a number of channels of no whole step."""
    check("aspp", make(24, 8, 24, (3, 3, 5), dtype, rates=(1, 2)), tile=[variant])


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize("outputs", [1, 6, 12, 21])
def test_any_number_of_outputs(outputs: int, activation: str) -> None:
    check("aspp", make(16, 16, outputs, (2, 6, 7), rates=(3,), activation=activation))


def test_without_scale_and_bias() -> None:
    check("aspp", make(16, 24, 8, (1, 5, 5), affine=False))


@pytest.mark.parametrize("processors", [1, 3, 1000])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 70), (1, 20, 31), (1, 1, 1025)])
def test_images_that_blocks_share(size: tuple[int, int, int], processors: int) -> None:
    """The mean by one block and by several, of which the last have fewer pixels, or none."""
    launches = check("aspp", make(40, 16, 64, size), processors=processors)
    assert launches[0].blocks == size[0] * max(1, min(processors // size[0], size[1] * size[2] // 64))


@pytest.mark.parametrize("channels", [80, 96, 160])
def test_few_accesses_conflict(channels: int) -> None:
    sums, biases, *_ = check("aspp", make(channels, 32, 16, (1, 8, 9)), watch_banks=True)
    assert sums.conflicts <= 0.05 * sums.wavefronts
    assert biases.conflicts <= 0.05 * biases.wavefronts


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channels": 12}, "input channels that are a multiple of 8, got 12"),
        ({"features": 12}, "features of a branch that are a multiple of 8, got 12"),
        ({"channels": 8200}, "at most 8192 channels, and features of a branch, got 8200 and 8"),
        (
            {"rates": (1, 8175)},
            r"an image of fewer than 2\^15 rows and columns, window, padding and a tile included, got 5x5 with a "
            r"window of 3x3, stride \[1, 1\], padding \[8175, 8175\], dilation \[8175, 8175\]",
        ),
        ({"rates": (1 << 60,)}, r"an image of fewer than 2\^15 rows and columns"),
    ],
)
def test_refusals(change: dict[str, Any], reason: str) -> None:
    """With a reason where the kernel is chosen, and again by the binding, whoever calls it."""
    arguments = make(**{"channels": 8, "features": 8, "outputs": 8, "size": (1, 5, 5), "rates": (1,), **change})
    with pytest.raises(BackendError, match=f"cuda: expected {reason}"):
        OPS["aspp"]("cuda", *arguments)
    reason = reason.replace("input channels", "channels")
    with pytest.raises(RuntimeError, match=rf"mobilevit_fast\.aspp: expected {reason}"):
        OPS["aspp"].run("cuda", arguments)


def test_the_largest_rate() -> None:
    """5 rows, a tile of 64, padding and window of together 4 * 8174: 32765."""
    check("aspp", make(8, 8, 8, (1, 5, 5), rates=(8174,)))


def test_as_many_channels_and_features_as_there_may_be() -> None:
    check("aspp", make(8192, 8, 8, (1, 1, 2), rates=(1,)))
    check("aspp", make(8, 8192, 8, (1, 1, 2), rates=(1,)))


@pytest.mark.parametrize("channels", [8, 520, 2056])
def test_few_and_many_channels(channels: int) -> None:
    """More than a block has threads for at once, too."""
    check("aspp", make(channels, 8, 16, (1, 3, 4), rates=(1,)))


def test_results_do_not_depend_on_the_order_of_threads() -> None:
    arguments = make(40, 24, 40, (2, 9, 11), torch.bfloat16)
    results = [run("aspp", arguments, seed=seed)[0] for seed in range(4)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)
