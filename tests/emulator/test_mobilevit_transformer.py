"""The CUDA kernels of the transformer stack, emulated: against float64, in several orders of threads, their counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from tests import samples
from tests.emulator import scratch_transformer as run
from tests.tolerance import assert_within_twice

DTYPES = [torch.float16, torch.bfloat16]
STACK: dict[str, Any] = {"rows": 0, "sequences": 2, "head_group": 2}
LAYERED: dict[str, Any] = {"rows": 16, "head_group": 4, "keys": 32}
WIDTHS = [(64, 48), (80, 64), (96, 80), (96, 64), (120, 80), (144, 96), (144, 96), (192, 128), (240, 160)]
"""Features and channels of the transformers of MobileViT-XXS, -XS and -S."""


def make(
    channels: int, features: int, layers: int, size: tuple[int, int, int], dtype: torch.dtype, **more: Any
) -> tuple[Any, ...]:
    """Arguments of the operator: parameters as in the samples of all tests, images of (batch, height, width)."""
    maker = samples._Maker(features + channels)
    heads, hidden = more.get("heads", 4), more.get("hidden", 2 * features)
    outputs, biased = more.get("outputs", channels), more.get("biased", True)

    def weights(outputs: int, inputs: int) -> Tensor:
        return torch.stack([maker.weight(outputs, inputs) for _ in range(layers)]).to(dtype)

    def norm(*shape: int) -> tuple[Tensor, Tensor]:
        return 1 + 0.1 * maker(*shape), 0.1 * maker(*shape)

    return (
        maker.image(size[0], channels, *size[1:], "channels_last").to(dtype),
        maker.weight(features, channels, 1, 1).to(dtype),
        maker(features) if biased else None,
        *norm(layers, features),
        weights(3 * features, features),
        maker(layers, 3 * features) if biased else None,
        *(weights(features, features), 0.1 * maker(layers, features)),
        *norm(layers, features),
        *(weights(hidden, features), 0.1 * maker(layers, hidden)),
        *(weights(features, hidden), 0.1 * maker(layers, features)),
        *norm(features),
        maker.weight(outputs, features, 1, 1).to(dtype),
        *((maker.scale(outputs), maker(outputs)) if biased else (None, None)),
        heads,
        list(more.get("patch", (2, 2))),
        1e-5,
        more.get("activation", "silu"),
        more.get("out_activation", "silu"),
    )


def check(arguments: tuple[Any, ...], *tiles: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Every tile against float64; the counts of the last one."""
    reference = ops.OPS["mobilevit_transformer"].reference
    with torch.no_grad():
        plain = reference(*arguments)
        exact = reference(*(a.double() if isinstance(a, Tensor) else a for a in arguments))
    counts: dict[str, Any] = {}
    for tile in tiles:
        actual, counts = run.mobilevit_transformer(arguments, **tile, **options)
        assert_within_twice(actual, plain, exact)
    return counts


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("features", "channels"), dict.fromkeys(WIDTHS))
def test_widths_of_the_models(features: int, channels: int, dtype: torch.dtype) -> None:
    """Heads of 16 to 60 features, on few tokens: one tile and a little more."""
    check(make(channels, features, 1, (1, 5, 4), dtype, patch=(1, 1)), STACK, LAYERED, seed=features)


@pytest.mark.parametrize(
    ("features", "channels", "size", "patch", "tile"),
    [
        (144, 96, (1, 16, 16), (1, 1), {"sequences": 1, "head_group": 1}),
        (192, 128, (1, 8, 16), (1, 2), {"sequences": 2, "head_group": 4}),
        (240, 160, (1, 8, 8), (2, 2), {"sequences": 4, "head_group": 2}),
    ],
)
def test_pixels_in_and_pixels_out_are_all_that_moves(
    features: int, channels: int, size: tuple[int, int, int], patch: tuple[int, int], tile: dict[str, Any]
) -> None:
    """One layer of the stacks of MobileViT-S at full width: activations are read once and written once."""
    x, *_ = arguments = make(channels, features, 1, size, torch.float16, patch=patch)
    counts = check(arguments, {"rows": 0, **tile})
    assert counts["x"] == (x.nbytes, 0)
    assert counts["y"] == (0, x.nbytes)
    moved = {name: value for name, value in counts.items() if isinstance(value, tuple)}
    assert not any(written for name, (_, written) in moved.items() if name != "y")


def test_the_first_stage_layer_by_layer() -> None:
    """256 tokens of 144 features, with keys and values in several steps."""
    arguments = make(96, 144, 1, (1, 16, 16), torch.bfloat16, patch=(1, 1))
    check(arguments, {"rows": 64, "head_group": 2, "keys": 64})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (4, 2), (1, 3)])
def test_patches_images_and_layers(patch: tuple[int, int], dtype: torch.dtype) -> None:
    arguments = make(16, 48, 2, (2, 4, 6), dtype, patch=patch)
    check(arguments, {**STACK, "sequences": 3}, {"rows": 32, "head_group": 2, "keys": 16}, LAYERED)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 33, 40, 64])
def test_any_number_of_tokens(tokens: int) -> None:
    """Less than a tile, whole tiles, and tails; sequences that fill the last block and ones that do not."""
    arguments = make(8, 32, 2, (3, 1, tokens), torch.float16, patch=(1, 1), heads=2)
    tiles = [{"rows": rows, "head_group": 1, "keys": keys} for rows, keys in ((16, 16), (32, 32), (64, 64))]
    check(arguments, {**STACK, "sequences": 1}, STACK, *tiles)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 12])
def test_any_number_of_heads(heads: int) -> None:
    """Groups of heads that leave a rest, heads of 4 to 48 features, no bias anywhere but where it has to be."""
    arguments = make(24, 48, 1, (1, 6, 8), torch.bfloat16, heads=heads, biased=False)
    check(arguments, {**STACK, "head_group": 1}, STACK, {**STACK, "head_group": 4}, LAYERED)


@pytest.mark.parametrize(
    ("features", "channels", "hidden", "outputs"), [(8, 8, 8, 8), (40, 24, 104, 136), (256, 8, 8, 8)]
)
def test_any_multiples_of_eight(features: int, channels: int, hidden: int, outputs: int) -> None:
    arguments = make(channels, features, 1, (1, 4, 6), torch.float16, hidden=hidden, outputs=outputs)
    check(arguments, STACK, LAYERED)


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_activations(activation: str) -> None:
    out = {"none": "relu", "relu": "silu", "silu": "none"}[activation]
    arguments = make(8, 16, 2, (1, 4, 4), torch.float16, activation=activation, out_activation=out)
    check(arguments, STACK, LAYERED)


@pytest.mark.parametrize("tile", [STACK, LAYERED, {"rows": 32, "head_group": 4, "keys": 16}], ids=str)
def test_results_do_not_depend_on_the_order_of_threads(tile: dict[str, Any]) -> None:
    arguments = make(16, 40, 2, (1, 12, 6), torch.float16)
    results = [run.mobilevit_transformer(arguments, **tile, seed=seed)[0] for seed in range(4)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("tile", [{**STACK, "sequences": 1}, LAYERED], ids=["stack", "layered"])
def test_few_accesses_conflict(tile: dict[str, Any]) -> None:
    """Queries are read in words, two rows of a bank; all else takes as many wavefronts as its bytes do."""
    counts = check(make(96, 144, 1, (1, 8, 16), torch.float16), tile, watch_banks=True)
    assert counts["conflicts"] <= 0.03 * counts["wavefronts"]


@pytest.mark.parametrize(
    ("processors", "shared_kib", "batch", "stage", "expected"),
    [
        (132, 227, 256, 0, {"sequences": 1, "head_group": 1}),
        (132, 227, 256, 1, {"sequences": 2, "head_group": 4}),
        (132, 227, 256, 2, {"sequences": 8, "head_group": 2}),
        (132, 227, 1, 0, {"rows": 16, "head_group": 4, "keys": 64}),
        (132, 227, 1, 1, {"rows": 16, "head_group": 4, "keys": 64}),
        (132, 227, 1, 2, {"rows": 16, "head_group": 4, "keys": 16}),
        (132, 227, 16, 0, {"rows": 32, "head_group": 4, "keys": 64}),
        (108, 163, 256, 0, {"rows": 64, "head_group": 2, "keys": 64}),
        (108, 163, 256, 1, {"sequences": 2, "head_group": 2}),
        (108, 163, 256, 2, {"sequences": 4, "head_group": 4}),
        (170, 99, 256, 0, {"rows": 64, "head_group": 2, "keys": 64}),
        (170, 99, 256, 1, {"sequences": 1, "head_group": 2}),
        (170, 99, 256, 2, {"sequences": 4, "head_group": 2}),
    ],
)
def test_choice_of_tiles(processors: int, shared_kib: int, batch: int, stage: int, expected: dict[str, int]) -> None:
    """The stacks of MobileViT-S on an H100, an A100 and a GeForce of compute capability 12.0."""
    channels, features, size = [(96, 144, 32), (128, 192, 16), (160, 240, 8)][stage]
    arguments = make(channels, features, 1, (1, size, size), torch.float16)
    arguments = (torch.empty(batch, channels, size, size, device="meta"), *arguments[1:])
    assert run.choose(arguments, processors, shared_kib) == expected


def test_sequences_that_do_not_fit() -> None:
    """2304 tokens of a 768 pixel image: layer by layer, however many images there are."""
    arguments = make(48, 64, 1, (64, 2, 2), torch.float16)
    arguments = (torch.empty(64, 48, 96, 96, device="meta"), *arguments[1:])
    assert run.choose(arguments, 132, 227)["rows"] == 64
