"""The CUDA kernels of the dense convolution, emulated: against float64, in several orders of threads, their counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from emulator.run import check, emulated, run
from mobilevit_fast.config import PRESETS
from mobilevit_fast.ops import OPS
from mobilevit_fast.ops.registry import BackendError
from testing.shapes import preset_calls
from testing.tiers import thorough

VARIANTS = range(emulated.conv2d_variants)
DTYPES = [torch.float16, torch.bfloat16]


def make(
    channels: tuple[int, int],
    outputs: int,
    size: tuple[int, int, int],
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: tuple[int, int] | None = None,
    activation: str = "silu",
    dtype: torch.dtype = torch.float16,
    layout: torch.memory_format = torch.channels_last,
) -> tuple[Any, ...]:
    """Arguments of the operator on images of (batch, height, width); padding keeps the size unless it is given."""
    generator = torch.Generator().manual_seed(sum(channels) * 7 + outputs)

    def randn(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    batch, height, width = size
    images = [randn(batch, c, height, width).to(dtype).contiguous(memory_format=layout) for c in channels if c > 0]
    window = randn(outputs, sum(channels), *kernel, scale=(sum(channels) * kernel[0] * kernel[1]) ** -0.5).to(dtype)
    scale, bias = 1 + 0.2 * randn(outputs), 0.3 * randn(outputs)
    if padding is None:
        padding = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
    second = images[1] if len(images) > 1 else None
    return images[0], second, window, scale, bias, list(stride), list(padding), list(dilation), activation


def model_shapes() -> list[Any]:
    """Channels, outputs, window, stride and image size of every dense convolution of the three sizes."""
    found = {}
    for preset in PRESETS:
        for segmentation in (False, True):
            for call in preset_calls(preset, 1, 256, torch.float16, segmentation=segmentation):
                if call.op == "conv2d_bias_act":
                    s = call.shape
                    channels = (s["inputs"], s.get("second_inputs", 0))
                    key = (channels, s["outputs"], s["kernel"], s["stride"], s["height"])
                    found[key] = f"{preset}-{channels[0]}+{channels[1]}-{s['outputs']}-k{s['kernel']}-{s['height']}"
    return [pytest.param(*key, id=name) for key, name in found.items()]


def model_shapes_and_types() -> list[Any]:
    """The shapes of ``model_shapes`` in each type; bfloat16 of the smallest model is enough for `make test`."""
    return [
        pytest.param(
            *shape.values,
            dtype,
            id=f"{shape.id}-{dtype}",
            marks=[pytest.mark.thorough] * (dtype == torch.bfloat16 and not str(shape.id).startswith("xx_small")),
        )
        for shape in model_shapes()
        for dtype in DTYPES
    ]


@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride", "size", "dtype"), model_shapes_and_types())
def test_shapes_of_the_models(
    channels: tuple[int, int], outputs: int, kernel: int, stride: int, size: int, dtype: torch.dtype
) -> None:
    """On small images with edges; at 8x8 pixels as they are. Many processors want many blocks, few want large tiles."""
    image = (1, 8, 8) if size == 8 else (1, 7, 15)
    arguments = make(channels, outputs, image, (kernel, kernel), (stride, stride), dtype=dtype)
    check("conv2d_bias_act", arguments, processors=132 if dtype == torch.float16 else 1, seed=size)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant(variant: int) -> None:
    """With a halo, tap by tap and pointwise; channels that are no multiple of a slice; tiles beyond every edge."""
    check("conv2d_bias_act", make((48, 24), 48, (3, 5, 9)), tile=[variant], seed=variant)
    check("conv2d_bias_act", make((40, 0), 136, (1, 9, 8), stride=(2, 2), dtype=torch.bfloat16), tile=[variant])
    check("conv2d_bias_act", make((16, 0), 24, (2, 9, 9), dilation=(6, 6)), tile=[variant])
    check("conv2d_bias_act", make((56, 0), 40, (2, 5, 9), (1, 1), activation="relu"), tile=[variant])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dilation", [1, 6])
def test_results_do_not_depend_on_the_order_of_threads(dilation: int, variant: int) -> None:
    arguments = make((32, 24), 24, (2, 6, 11), dilation=(dilation, dilation))
    results = [run("conv2d_bias_act", arguments, tile=[variant], seed=seed)[0] for seed in range(3)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("rate", [6, 12, 18])
@pytest.mark.parametrize("channels", [80, 160])
def test_dilations_of_a_segmentation_head(channels: int, rate: int) -> None:
    """At 16x16 pixels. Taps that see nothing but padding cost nothing, at 18 all but the middle one for some tiles."""
    arguments = make((channels, 0), 32, (1, 16, 16), dilation=(rate, rate), activation="relu")
    (launch,) = check("conv2d_bias_act", arguments, tile=[10])
    every_tap = 8 * 9 * (channels // 16) * 8  # blocks, taps, units, products
    assert launch.products <= {6: 0.85, 12: 0.5, 18: 0.12}[rate] * every_tap


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((1, 1), (2, 2), (0, 0), (1, 1)),
        ((1, 1), (1, 1), (1, 2), (1, 1)),
        ((2, 2), (2, 2), (0, 0), (1, 1)),
        ((1, 2), (1, 1), (0, 1), (1, 1)),
        ((5, 5), (1, 2), (2, 2), (1, 1)),
        ((1, 7), (1, 1), (0, 3), (1, 1)),
        ((7, 1), (3, 1), (3, 0), (1, 1)),
        ((3, 3), (1, 1), (0, 0), (1, 1)),
        ((3, 3), (2, 3), (2, 5), (1, 2)),
        ((3, 3), (1, 1), (4, 4), (1, 1)),
        ((3, 2), (1, 1), (1, 3), (2, 3)),
    ],
)
def test_windows(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    for variant in (2, 9, 11):
        check("conv2d_bias_act", make((16, 8), 16, (2, 9, 10), kernel, stride, dilation, padding), tile=[variant])


@pytest.mark.parametrize("tile", [(4, 1, 16, 8), (10, 1, 1, 32), (10, 8, 2, 2), (11, 16, 1, 1), (11, 1, 4, 4)])
def test_shapes_of_tiles(tile: tuple[int, int, int, int]) -> None:
    """A variant's pixels as tiles of any images, height and width."""
    check("conv2d_bias_act", make((16, 0), 48, (3, 10, 9)), tile=list(tile))


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_reach_of_a_window(kernel: int, across: bool) -> None:
    """Python's rule and the binding draw the same line, in rows and in columns."""

    def both(values: tuple[int, int]) -> list[int]:
        return list(values[::-1] if across else values)

    x = torch.zeros(1, 8, *both((65, 9)), dtype=torch.float16)
    weight = torch.zeros(8, 8, *both((kernel, 1)), dtype=torch.float16)
    operator = OPS["conv2d_bias_act"]
    # 65 rows and a tile of 64 are 129; 32767 is the most.
    padding, dilation = (0, (1 << 15) - 1) if kernel == 1 else (8170, 8149)
    fits = (x, None, weight, None, None, [1, 1], both((padding, 0)), both((dilation, 1)), "none")
    assert run("conv2d_bias_act", fits)[0].shape[2 + across] == 65 + 2 * padding - (kernel - 1) * dilation
    more = (*fits[:7], both((dilation + 1, 1)), "none")
    expected = "expected an image of fewer than 2\\^15 rows and columns"
    with pytest.raises(BackendError, match=expected):
        operator("cuda", *more)
    with pytest.raises(RuntimeError, match=expected):
        operator.run("cuda", more)


@pytest.mark.parametrize("outputs", [1, 6, 12, 21])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_any_number_of_outputs(activation: str, outputs: int) -> None:
    check("conv2d_bias_act", make((16, 0), outputs, (1, 6, 7), activation=activation))
    check("conv2d_bias_act", make((3, 0), outputs, (1, 6, 7), activation=activation))


def test_without_scale_and_bias() -> None:
    x, x2, weight, _, _, *rest = make((16, 8), 16, (1, 5, 5))
    check("conv2d_bias_act", (x, x2, weight, None, None, *rest))


def test_not_a_number_stays_where_it_is_seen() -> None:
    x, *rest = make((16, 0), 16, (1, 12, 12))
    x[0, 3, 6, 6] = torch.nan
    y, _ = run("conv2d_bias_act", (x, *rest))
    seen = torch.zeros(12, 12, dtype=torch.bool)
    seen[5:8, 5:8] = True
    assert torch.equal(y.isnan().all(1)[0], seen)
    assert torch.equal(y.isnan().any(1)[0], seen)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"])
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "dilation"),
    [
        (3, (3, 3), (2, 2), (1, 1)),
        (1, (7, 7), (2, 2), (1, 1)),
        (4, (4, 4), (4, 4), (1, 1)),
        (5, (3, 2), (1, 2), (2, 3)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_stems(
    dtype: torch.dtype,
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    layout: torch.memory_format,
) -> None:
    arguments = make((channels, 0), 40, (2, 21, 75), kernel, stride, dilation, dtype=dtype, layout=layout)
    check("conv2d_bias_act", arguments, seed=channels)
    check("conv2d_bias_act", arguments, tile=[3, 7])  # no whole number of products


@pytest.mark.parametrize("pixels", [torch.float16, torch.uint8], ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"])
def test_results_of_a_stem_do_not_depend_on_the_order_of_threads(
    layout: torch.memory_format, pixels: torch.dtype
) -> None:
    x, *rest = make((3, 0), 16, (1, 20, 70), stride=(2, 2), layout=layout)
    arguments = (x.abs().to(pixels), *rest)
    results = [run("conv2d_bias_act", arguments, seed=seed)[0] for seed in range(3)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("constant", [False, True], ids=["bytes", "bytes-and-constant"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_stems_over_bytes(dtype: torch.dtype, layout: torch.memory_format, constant: bool) -> None:
    """An image of uint8; with a channel more of weights, over a constant that padding has not."""
    x, *rest = make((3, 0), 16, (2, 21, 75), stride=(2, 2), dtype=dtype, layout=layout)
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, x.shape, generator=generator, dtype=torch.uint8).contiguous(memory_format=layout)
    scale = rest[2] / 255
    if constant:
        rest[1] = torch.cat((rest[1], -100 * rest[1].sum(1, keepdim=True)), dim=1)
    (launch,) = check("conv2d_bias_act", (x, *rest[:2], scale, *rest[3:]), seed=3)
    assert launch.arrays["x"][0] <= 1.5 * x.numel()
    check("conv2d_bias_act", (x, *rest[:2], scale, *rest[3:]), tile=[3, 7])


@pytest.mark.parametrize(
    ("channels", "outputs", "size", "batch", "variant"),
    [
        ((96, 0), 96, 32, 1, 1),
        thorough(((160, 160), 80, 8, 2, 3)),
        ((160, 160), 160, 8, 2, 5),
        thorough(((96, 0), 96, 8, 2, 6)),
        thorough(((96, 96), 96, 8, 2, 6)),
    ],
)
def test_whole_images_move_little_more_than_they_have_to(
    channels: tuple[int, int], outputs: int, size: int, batch: int, variant: int
) -> None:
    """A 3x3 of MobileViT-S, those over two inputs at 8x8 pixels: bytes of input and output; no bank conflicts."""
    arguments = make(channels, outputs, (batch, size, size))
    (launch,) = check("conv2d_bias_act", arguments, tile=[variant], watch_banks=True)
    least = batch * size * size * 2 * (sum(channels) + outputs)
    assert launch.moved("y", *(name for name in launch.arrays if name.startswith("x"))) <= 1.25 * least
    assert launch.arrays["y"] == (0, batch * size * size * outputs * 2)
    assert launch.conflicts == 0


def test_a_whole_stem_moves_little_more_than_it_has_to() -> None:
    arguments = make((3, 0), 16, (1, 256, 256), stride=(2, 2))
    (launch,) = check("conv2d_bias_act", arguments, processors=16)
    assert launch.moved("x", "y") <= 1.25 * (256 * 256 * 3 + 128 * 128 * 16) * 2


@pytest.mark.parametrize("preset", PRESETS)
def test_tiles_are_many_or_large(preset: str) -> None:
    """On 132 processors: one image makes blocks for many of them, many images make the largest tiles."""
    for call in preset_calls(preset, 1, 256, torch.float16):
        if call.op != "conv2d_bias_act" or call.shape["inputs"] == 3:
            continue
        s = call.shape
        sides = (s["height"], s["width"])
        channels = (s["inputs"], s.get("second_inputs", 0), s["outputs"])
        window = (*[s["kernel"]] * 2, 1, 1, *[(s["kernel"] - 1) // 2] * 2, 1, 1)
        one, many = (emulated.conv2d_tile([batch, *sides, *channels, *sides, *window], 132) for batch in (1, 1024))
        assert one["blocks"] >= 20
        assert many["variant"] < 7
        if s["height"] == 8:  # a batch as it is measured: two images a block, and all their outputs
            assert emulated.conv2d_tile([256, *sides, *channels, *sides, *window], 132)["blocks"] == 128
        assert not one["gathers"]
        assert not many["gathers"]
        for tile in (one, many):  # eight warps in the 100 KiB of a processor: one block, or two of four warps
            assert tile["shared_bytes"] <= (98 if tile["warps"] == 8 else 49) << 10
