"""The kernel of the transformer stack in which a warp has its tokens to itself, emulated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emulator.run import Launch, check, run
from mobilevit_fast import ops
from testing import samples
from testing.tiers import thorough, thorough_where
from testing.tolerance import assert_within_twice, rms_error
from tests.emulator.test_mobilevit_transformer import DTYPES, WIDTHS, choose, make

WARPS = (1,)
"""The tile that stands for it."""


def check_warps(arguments: tuple[Any, ...], **options: Any) -> Launch:
    (launch,) = check("mobilevit_transformer", arguments, tile=WARPS, **options)
    assert launch.name == "MobileViTTransformerWarps"
    return launch


@pytest.mark.parametrize(
    ("features", "channels", "dtype"),
    thorough_where(
        [(*width, dtype) for width in dict.fromkeys(WIDTHS) if width[0] <= 128 for dtype in DTYPES],
        lambda case: (case[0], case[2]) not in [(64, DTYPES[0]), (80, DTYPES[1]), (120, DTYPES[0])],
    ),
    ids=str,
)
def test_widths_of_the_models(features: int, channels: int, dtype: torch.dtype) -> None:
    """Heads of 16 to 30 features, on few tokens: two tiles, one of them full."""
    check_warps(make(channels, features, 2, (1, 5, 4), dtype, patch=(1, 1)), seed=features)


@pytest.mark.parametrize(
    ("features", "heads"), thorough_where([(72, 4), (72, 3), (88, 4), (128, 4)], lambda case: case[0] != 72), ids=str
)
def test_other_widths(features: int, heads: int) -> None:
    """All that these numbers of tiles hold: features that are no whole steps, heads that are no whole tiles."""
    check_warps(make(8, features, 2, (2, 3, 3), torch.float16, patch=(1, 1), heads=heads), seed=heads)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 32, 33, 49, *map(thorough, (64, 65, 144, 255, 256))])
@pytest.mark.parametrize(
    ("features", "dtype"), [(64, DTYPES[0]), *map(thorough, ((80, DTYPES[1]), (120, DTYPES[0])))], ids=str
)
def test_any_number_of_tokens(tokens: int, features: int, dtype: torch.dtype) -> None:
    """Sequences that are part of a tile and those that fill a block; three of them, so that blocks are not full."""
    check_warps(make(8, features, 1, (3, 1, tokens), dtype, patch=(1, 1)), seed=tokens)


@pytest.mark.parametrize("factor", [1e3, 4e4, 1e14])
def test_large_scores(factor: float) -> None:
    """One key takes all the weight, in a rounded type now and then another one: the error of many images decides."""
    arguments = samples.sharpened(make(32, 64, 1, (16, 8, 12), torch.bfloat16), factor)
    actual, _ = run("mobilevit_transformer", arguments, tile=WARPS)
    reference = ops.OPS["mobilevit_transformer"].reference
    exact = reference(*(a.double() if isinstance(a, Tensor) else a for a in arguments))
    assert_within_twice(actual, reference(*arguments), exact, measure=rms_error)


@pytest.mark.parametrize("size", [4, 7, thorough(16)])
def test_what_is_no_number_stays_in_its_sequence(size: int) -> None:
    x, *rest = make(8, 64, 2, (3, size, size), torch.float16, patch=(1, 1))
    whole, _ = run("mobilevit_transformer", (x, *rest), tile=WARPS)
    x[1, 3, -1, -1] = torch.nan
    found, _ = run("mobilevit_transformer", (x, *rest), tile=WARPS)
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], whole[[0, 2]])


def test_tokens_that_are_all_alike() -> None:
    """Their norms are not numbers without an epsilon, but those of copies that fill a tile are no others."""
    arguments = make(16, 64, 2, (2, 5, 4), torch.float16, patch=(1, 1), biased=False)
    check_warps((*arguments[:22], 0.0, *arguments[23:]))


@pytest.mark.parametrize(("channels", "hidden", "outputs"), [(8, 8, 8), (24, 104, 136)])
def test_any_multiples_of_eight(channels: int, hidden: int, outputs: int) -> None:
    check_warps(make(channels, 64, 1, (1, 4, 6), torch.float16, hidden=hidden, outputs=outputs))


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_activations(activation: str) -> None:
    out = {"none": "relu", "relu": "silu", "silu": "none"}[activation]
    check_warps(make(8, 64, 2, (1, 4, 4), torch.float16, activation=activation, out_activation=out))


@pytest.mark.parametrize(("features", "layers"), [(80, 3), thorough((120, 2))])
def test_results_do_not_depend_on_the_order_of_threads(features: int, layers: int) -> None:
    """With sequences of two warps, in an odd number of images."""
    arguments = make(16, features, layers, (5, 14, 14), torch.float16)
    results = [run("mobilevit_transformer", arguments, tile=WARPS, seed=seed)[0] for seed in range(3)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


def test_weights_come_once_for_a_block() -> None:
    """Pixels are read and written once; of the weights no warp reads any for itself."""
    arguments = make(80, 120, 2, (1, 16, 16), torch.float16)
    launch = check_warps(arguments, watch_banks=True)
    assert launch.blocks == 1
    assert launch.moved("x", "y") == 2 * arguments[0].nbytes
    assert launch.arrays["fc1_weight"][0] == 2 * 2 * 128 * 240
    assert launch.conflicts <= 0.02 * launch.wavefronts


@pytest.mark.parametrize(
    ("features", "channels", "size", "images", "by_warps"),
    [
        (64, 48, 32, 14, True),
        (64, 48, 32, 13, False),
        (120, 80, 16, 54, True),
        (120, 80, 16, 53, False),
        (96, 80, 8, 213, True),
        (96, 80, 8, 212, False),
        (144, 96, 32, 256, False),
        (192, 128, 16, 256, False),
        (240, 160, 8, 256, False),
        (64, 48, 36, 256, False),
    ],
)
def test_choice(features: int, channels: int, size: int, images: int, by_warps: bool) -> None:
    """Where blocks keep half of an A100's multiprocessors busy, of widths and lengths that a block holds."""
    assert ("by_warps" in choose(images, channels, features, size, 108, 163)) == by_warps
