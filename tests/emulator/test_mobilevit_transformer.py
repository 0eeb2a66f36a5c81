"""The CUDA kernels of the transformer stack, emulated: against float64, in several orders of threads, their counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from emulator.run import Launch, check, emulated, run
from mobilevit_fast import ops
from mobilevit_fast.config import PRESETS
from testing import samples
from testing.shapes import preset_calls
from testing.tiers import thorough, thorough_where
from testing.tolerance import assert_within_twice, rms_error

DTYPES = [torch.float16, torch.bfloat16]
STACK, LAYERED = (2, 2), (16, 4, 32)
"""Tiles: sequences of a block and heads at a time; or tokens, heads and keys, and the stack goes layer by layer."""
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


def choose(batch: int, channels: int, features: int, size: int, processors: int, shared_kib: int) -> dict[str, int]:
    """The tiles of images of `size` pixels on a chip with so many processors and KiB of shared memory for a block."""
    sizes = {"batch": batch, "height": size, "width": size, "channels": channels, "features": features}
    emulated.set_chip(processors, shared_kib << 10)
    return dict(emulated.transformer_tile({**sizes, "hidden": 2 * features, "heads": 4}))


def check_tiles(arguments: tuple[Any, ...], *tiles: Sequence[int], **options: Any) -> list[Launch]:
    """Every tile against float64; the launches of the last one."""
    launches: list[Launch] = []
    for tile in tiles:
        launches = check("mobilevit_transformer", arguments, tile=tile, **options)
    return launches


@pytest.mark.parametrize(
    ("features", "channels", "dtype"),
    thorough_where(
        [(*width, dtype) for width in dict.fromkeys(WIDTHS) for dtype in DTYPES],
        lambda case: case[2] == torch.bfloat16 and case[0] not in (64, 120),
    ),
    ids=str,
)
def test_widths_of_the_models(features: int, channels: int, dtype: torch.dtype) -> None:
    """Heads of 16 to 60 features, on few tokens: one tile and a little more."""
    check_tiles(make(channels, features, 1, (1, 5, 4), dtype, patch=(1, 1)), STACK, LAYERED, seed=features)


@pytest.mark.parametrize("factor", [1e3, 4e4, 1e14])
@pytest.mark.parametrize("tile", [STACK, LAYERED], ids=["stack", "layered"])
def test_large_scores(tile: Sequence[int], factor: float) -> None:
    """Up to a million, and on to the end of the type's range; one key takes all the weight. Few numbers: their root
    mean square decides.
    """
    arguments = samples.sharpened(make(32, 48, 1, (1, 8, 12), torch.bfloat16), factor)
    actual, _ = run("mobilevit_transformer", arguments, tile=tile)
    reference = ops.OPS["mobilevit_transformer"].reference
    exact = reference(*(a.double() if isinstance(a, Tensor) else a for a in arguments))
    assert_within_twice(actual, reference(*arguments), exact, measure=rms_error)


@pytest.mark.parametrize(
    ("features", "channels", "size", "patch", "tile"),
    [
        (144, 96, (1, 16, 16), (1, 1), (1, 1)),
        (192, 128, (1, 8, 16), (1, 2), (2, 4)),
        (240, 160, (1, 8, 8), (2, 2), (4, 2)),
    ],
)
def test_pixels_in_and_pixels_out_are_all_that_moves(
    features: int, channels: int, size: tuple[int, int, int], patch: tuple[int, int], tile: tuple[int, int]
) -> None:
    """The first stack of MobileViT-S on one sequence, a layer of the others: activations are read and written once."""
    x, *_ = arguments = make(channels, features, 2 if features == 144 else 1, size, torch.float16, patch=patch)
    (launch,) = check_tiles(arguments, tile)
    assert launch.arrays["x"] == (x.nbytes, 0)
    assert launch.arrays["y"] == (0, x.nbytes)
    assert not any(written for name, (_, written) in launch.arrays.items() if name != "y")


def whole_stack(preset: str, stage: int) -> tuple[Any, ...]:
    """Arguments of a whole image at full width through all layers."""
    calls = preset_calls(preset, 1, 256, torch.float16)
    shape = [call.shape for call in calls if call.op == "mobilevit_transformer"][stage]
    size = (1, shape["height"], shape["width"])
    return make(shape["inputs"], shape["hidden_size"], shape["layers"], size, torch.float16)


@pytest.mark.parametrize(
    ("preset", "stage"),
    thorough_where(
        [(preset, stage) for preset in PRESETS for stage in (1, 2)],
        lambda case: case not in [("xx_small", 1), ("xx_small", 2), ("small", 2)],
    ),
)
def test_whole_stacks_of_the_models(preset: str, stage: int) -> None:
    """In one launch that reads and writes the image once."""
    arguments = whole_stack(preset, stage)
    (launch,) = check("mobilevit_transformer", arguments, processors=1)
    by_warps = arguments[1].shape[0] <= 128  # features whose residual stream the registers of a warp hold
    assert launch.name == ("MobileViTTransformerWarps" if by_warps else "MobileViTTransformerStack")
    assert launch.moved("x", "y") == 2 * arguments[0].nbytes


@pytest.mark.parametrize("stage", [thorough(1), 2])
def test_a_whole_stack_does_not_depend_on_the_order_of_threads(stage: int) -> None:
    arguments = whole_stack("xx_small", stage)
    first, second = (run("mobilevit_transformer", arguments, processors=1, seed=seed)[0] for seed in (1, 2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("layers", "dtype"),
    thorough_where(
        [(layers, dtype) for layers in (3, 5, 8) for dtype in DTYPES],
        lambda case: case not in [(3, DTYPES[1]), (5, DTYPES[0])],
    ),
    ids=str,
)
def test_any_number_of_layers(layers: int, dtype: torch.dtype) -> None:
    check_tiles(make(16, 32, layers, (1, 6, 5), dtype, patch=(1, 1)), STACK, LAYERED, seed=layers)


def test_sequences_that_no_block_holds() -> None:
    """1156 tokens, those of an image of 544 pixels in height and width: keys and values come in tiles, by choice."""
    arguments = make(48, 64, 1, (1, 34, 34), torch.float16, patch=(1, 1))
    launches = check("mobilevit_transformer", arguments)
    assert [launch.name for launch in launches] == 2 * ["MobileViTTransformerLayer"]


def test_the_first_stage_layer_by_layer() -> None:
    """256 tokens of 144 features, with keys and values in several steps."""
    arguments = make(96, 144, 1, (1, 16, 16), torch.bfloat16, patch=(1, 1))
    check_tiles(arguments, (64, 2, 64))


@pytest.mark.parametrize(
    ("patch", "dtype"),
    thorough_where(
        [(patch, dtype) for patch in ((1, 1), (2, 2), (4, 2), (1, 3)) for dtype in DTYPES],
        lambda case: case[1] == torch.bfloat16 and case[0] != (4, 2),
    ),
    ids=str,
)
def test_patches_images_and_layers(patch: tuple[int, int], dtype: torch.dtype) -> None:
    arguments = make(16, 48, 2, (2, 4, 6), dtype, patch=patch)
    check_tiles(arguments, (3, 2), (32, 2, 16), LAYERED)


@pytest.mark.parametrize(
    ("size", "patch", "dtype"),
    thorough_where(
        [
            (*case, dtype)
            for case in (((2, 5, 7), (2, 2)), ((1, 1, 1), (2, 2)), ((1, 4, 7), (3, 4)))
            for dtype in DTYPES
        ],
        lambda case: case[2] == torch.bfloat16 and case[0] != (2, 5, 7),
    ),
    ids=str,
)
def test_images_of_no_whole_patches_are_resized(
    size: tuple[int, int, int], patch: tuple[int, int], dtype: torch.dtype
) -> None:
    for activation in ("silu", "relu", "none"):
        launches = check_tiles(make(16, 32, 1, size, dtype, patch=patch, out_activation=activation), STACK, LAYERED)
        kinds = [launch.name for launch in launches]
        assert [kinds[0], kinds[-1], len(kinds)] == ["Resize", "Resize", 4]


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 33, thorough(40), thorough(64)])
def test_any_number_of_tokens(tokens: int) -> None:
    """Less than a tile, whole tiles, and tails; sequences that fill the last block and ones that do not."""
    arguments = make(8, 32, 2, (3, 1, tokens), torch.float16, patch=(1, 1), heads=2)
    tiles = [(rows, 1, keys) for rows, keys in ((16, 16), (32, 32), (64, 64))]
    check_tiles(arguments, (1, 2), STACK, *tiles)


def test_rows_that_pad_a_sequence_count_for_nothing() -> None:
    """Without an epsilon and a bias their norms are not numbers."""
    arguments = make(16, 32, 2, (1, 5, 4), torch.float16, patch=(1, 1), biased=False)
    check_tiles((*arguments[:22], 0.0, *arguments[23:]), STACK, LAYERED)


@pytest.mark.parametrize("heads", [1, thorough(2), 3, thorough(6), 12])
def test_any_number_of_heads(heads: int) -> None:
    """Groups of heads that leave a rest, heads of 4 to 48 features, no bias anywhere but where it has to be."""
    arguments = make(24, 48, 1, (1, 6, 8), torch.bfloat16, heads=heads, biased=False)
    check_tiles(arguments, (2, 1), STACK, (2, 4), LAYERED)


@pytest.mark.parametrize(
    ("features", "channels", "hidden", "outputs"), [(8, 8, 8, 8), (40, 24, 104, 136), (256, 8, 8, 8)]
)
def test_any_multiples_of_eight(features: int, channels: int, hidden: int, outputs: int) -> None:
    arguments = make(channels, features, 1, (1, 4, 6), torch.float16, hidden=hidden, outputs=outputs)
    check_tiles(arguments, STACK, LAYERED)


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_activations(activation: str) -> None:
    out = {"none": "relu", "relu": "silu", "silu": "none"}[activation]
    arguments = make(8, 16, 2, (1, 4, 4), torch.float16, activation=activation, out_activation=out)
    check_tiles(arguments, STACK, LAYERED)


@pytest.mark.parametrize("tile", [STACK, LAYERED, (32, 4, 16)], ids=str)
def test_results_do_not_depend_on_the_order_of_threads(tile: tuple[int, ...]) -> None:
    arguments = make(16, 40, 2, (1, 12, 6), torch.float16)
    results = [run("mobilevit_transformer", arguments, tile=tile, seed=seed)[0] for seed in range(4)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("tile", [(1, 2), LAYERED], ids=["stack", "layered"])
def test_few_accesses_conflict(tile: tuple[int, ...]) -> None:
    """Queries are read in words, two rows of a bank; all else takes as many wavefronts as its bytes do."""
    launches = check_tiles(make(96, 144, 1, (1, 8, 16), torch.float16), tile, watch_banks=True)
    assert sum(one.conflicts for one in launches) <= 0.03 * sum(one.wavefronts for one in launches)


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
    assert choose(batch, channels, features, size, processors, shared_kib) == expected


def test_sequences_that_do_not_fit() -> None:
    """2304 tokens of a 768 pixel image: layer by layer, however many images there are."""
    assert choose(64, 48, 64, 96, 132, 227)["rows"] == 64
