"""The dense convolutions of compute capability 9.0, emulated: against float64, in several orders, what they move."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from emulator.run import Launch, check, chip, emulated, run, weight_bytes
from mobilevit_fast.kernels.cuda.sm90 import conv3x3, small_conv
from mobilevit_fast.kernels.cuda.sm90.atrous import SLICES
from tests.emulator.test_conv2d_bias_act import make, model_shapes

VARIANTS = emulated.conv3x3_sm90_variants()
"""(channels, inputs, outputs of a tile) by variant."""
BOTH = [torch.float16, torch.bfloat16]
MANY: dict[str, Any] = {"tile": (0, 0, 0)}
"""No tile of any kernel: the usual ones, but not the kernels for few images."""


def check_sm90(arguments: tuple[Any, ...], kernel: str, **options: Any) -> Launch:
    """As ``check``; the launch, which is one of this kernel."""
    (launch,) = check("conv2d_bias_act", arguments, capability=90, **{**MANY, **options})
    assert launch.name == kernel
    return launch


def convolution(channels: int, inputs: int, size: tuple[int, int, int], **options: Any) -> tuple[Any, ...]:
    return make((channels, channels * (inputs - 1)), channels, size, **options)


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_every_variant(variant: int) -> None:
    """Several tiles of a block, beyond every edge; images that are no whole number of tiles."""
    channels, inputs, _ = VARIANTS[variant]
    dtype = BOTH[variant % 2]
    launch = check_sm90(
        convolution(channels, inputs, (3, 11, 19), dtype=dtype),
        "Conv3x3Sm90",
        tile=[variant],
        processors=2,
        seed=variant,
    )
    assert launch.blocks == 2
    assert launch.arrays["y"] == (0, 3 * 11 * 19 * channels * 2)


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_results_do_not_depend_on_the_order_of_threads(variant: int) -> None:
    channels, inputs, _ = VARIANTS[variant]
    arguments = convolution(channels, inputs, (3, 16, 8))
    options: dict[str, Any] = {"tile": [variant], "processors": 1, "capability": 90}
    results = [run("conv2d_bias_act", arguments, seed=seed, **options)[0] for seed in range(3)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride", "size"), model_shapes())
def test_shapes_of_the_models(channels: tuple[int, int], outputs: int, kernel: int, stride: int, size: int) -> None:
    """One image as it is: every 3x3 without stride has such a kernel."""
    if kernel == 1 or stride == 2:
        pytest.skip("another kernel's")
    launch = check_sm90(make(channels, outputs, (1, size, size), dtype=BOTH[1]), "Conv3x3Sm90", seed=size)
    least = size * size * 2 * (sum(channels) + outputs)
    assert launch.moved("y", *(name for name in launch.arrays if name.startswith("x"))) <= 7 * least


@pytest.mark.parametrize("size", [(2, 24, 40), (5, 7, 5), (1, 8, 33)])
@pytest.mark.parametrize(("channels", "inputs"), [(48, 2), (80, 1), (96, 2), (160, 1)])
def test_other_image_sizes(channels: int, inputs: int, size: tuple[int, int, int]) -> None:
    check_sm90(convolution(channels, inputs, size, dtype=BOTH[1]), "Conv3x3Sm90", processors=3)


@pytest.mark.parametrize("variant", [5, 7, 14, 23])
def test_not_a_number_stays_where_it_is_seen(variant: int) -> None:
    channels, inputs, _ = VARIANTS[variant]
    x, *rest = convolution(channels, inputs, (2, 12, 12))
    x[0, 3, 6, 7] = torch.nan
    y, _ = run("conv2d_bias_act", (x, *rest), capability=90, tile=[variant])
    seen = torch.zeros(2, 12, 12, dtype=torch.bool)
    seen[0, 5:8, 6:9] = True
    assert torch.equal(y.isnan().all(1), seen)
    assert torch.equal(y.isnan().any(1), seen)


@pytest.mark.parametrize(("channels", "inputs", "size", "variant"), [(96, 1, 32, 5), (128, 2, 16, 9), (160, 1, 8, 14)])
def test_many_images_are_read_and_multiplied_once(channels: int, inputs: int, size: int, variant: int) -> None:
    """Of two tiles of a block the second reads no resident weights again; the matrix units do nothing in vain."""
    images = 4 if size == 8 else 2
    arguments = convolution(channels, inputs, (images, size, size))
    launch = check_sm90(arguments, "Conv3x3Sm90", tile=[variant], processors=1)
    least = images * size * size * 2 * channels * (inputs + 1)
    assert launch.moved("y", *(name for name in launch.arrays if name.startswith("x"))) <= 1.5 * least
    assert launch.wgmma_macs == images * size * size * 9 * channels * inputs * channels
    tiles = 1 if variant == 5 else 2
    assert launch.arrays["weight"][0] == tiles * 9 * channels * inputs * channels * 2


@pytest.mark.parametrize(
    "arguments",
    [
        make((96, 0), 96, (1, 8, 8), activation="relu"),
        make((96, 0), 96, (1, 9, 9), stride=(2, 2)),
        make((96, 0), 96, (1, 9, 9), padding=(0, 1)),
        make((64, 32), 96, (1, 8, 8)),
        make((144, 48), 96, (1, 8, 8)),
        make((192, 0), 96, (1, 8, 8)),
        make((96, 0), 96, (9, 1, 1)),
        make((32, 0), 32, (1, 8, 8)),
    ],
    ids=["relu", "stride", "padding", "other", "unequal", "wide", "pixels", "channels"],
)
def test_what_another_kernel_runs(arguments: tuple[Any, ...]) -> None:
    check_sm90(arguments, "Conv2dBiasAct", processors=1)


@pytest.mark.parametrize(("channels", "orders"), [(48, 1), (80, 1), (96, 2), (160, 2)])
def test_such_a_gpu_has_the_weights_in_other_orders_too(channels: int, orders: int) -> None:
    arguments = convolution(channels, 2, (1, 8, 8), dtype=BOTH[1])
    weight = arguments[2]
    with chip(capability=90):
        packed = weight_bytes("conv2d_bias_act", arguments)
    assert packed - weight_bytes("conv2d_bias_act", arguments) == (orders + 1) * weight.nbytes
    for part in (*conv3x3.pack(weight), small_conv.pack(weight)):
        assert torch.equal(part.flatten().sort()[0], weight.flatten().sort()[0])


def atrous(channels: int, outputs: int, rate: int, size: tuple[int, int, int], **options: Any) -> tuple[Any, ...]:
    """Arguments of a 1x1 convolution, whose ``rate`` is 0, or of a 3x3 one with this dilation."""
    window, dilation = (3, rate) if rate > 0 else (1, 1)
    return make((channels, 0), outputs, size, (window, window), dilation=(dilation, dilation), **options)


@pytest.mark.parametrize("outputs", SLICES)
@pytest.mark.parametrize(("channels", "rate", "size"), [(32, 0, (2, 9, 19)), (16, 2, (1, 17, 8)), (48, 5, (3, 6, 7))])
def test_pointwise_and_dilated(outputs: int, channels: int, rate: int, size: tuple[int, int, int]) -> None:
    """Several tiles of a block, beyond every edge; windows as large as the image."""
    dtype = BOTH[(SLICES.index(outputs) + rate) % 2]
    launch = check_sm90(atrous(channels, outputs, rate, size, dtype=dtype), "AtrousSm90", processors=2, seed=outputs)
    batch, height, width = size
    assert launch.arrays["y"] == (0, batch * height * width * outputs * 2)
    assert str(dtype)[6:].lower() in launch.kernel.lower().replace("half", "float16")


@pytest.mark.parametrize(("outputs", "slices"), [(192, 2), (320, 2), (384, 3), (1024, 4)])
@pytest.mark.parametrize("rate", [0, 3])
def test_outputs_in_slices(outputs: int, slices: int, rate: int) -> None:
    launch = check_sm90(atrous(16, outputs, rate, (1, 7, 10)), "AtrousSm90", processors=3)
    assert sum(name.startswith("weight") for name in launch.arrays) == slices


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize(("rate", "size"), [(0, (1, 16, 8)), (40, (1, 9, 12))])
def test_activations_of_pointwise_and_dilated(activation: str, rate: int, size: tuple[int, int, int]) -> None:
    """And a rate of which the middle tap alone sees the image, which costs no more than a pointwise convolution."""
    launch = check_sm90(atrous(64, 64, rate, size, activation=activation), "AtrousSm90", processors=1)
    tiles = (size[1] + 15) // 16 * ((size[2] + 7) // 8)
    assert launch.wgmma_macs == tiles * 128 * 64 * 64


@pytest.mark.parametrize(("outputs", "rate"), [(96, 0), (320, 2)])
def test_pointwise_and_dilated_results_do_not_depend_on_the_order_of_threads(outputs: int, rate: int) -> None:
    arguments = atrous(48, outputs, rate, (2, 10, 12))
    options: dict[str, Any] = {"processors": 2, "capability": 90, **MANY}
    results = [run("conv2d_bias_act", arguments, seed=seed, **options)[0] for seed in range(3)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


def test_pointwise_and_dilated_without_scale_and_bias_and_of_planar_images() -> None:
    x, x2, weight, _, _, *rest = atrous(32, 64, 2, (1, 9, 16), layout=torch.contiguous_format)
    check_sm90((x, x2, weight, None, None, *rest), "AtrousSm90", processors=2)


@pytest.mark.parametrize("rate", [0, 2])
def test_not_a_number_stays_where_a_window_sees_it(rate: int) -> None:
    x, *rest = atrous(32, 64, rate, (2, 12, 12))
    x[0, 3, 6, 7] = torch.nan
    y, (launch,) = run("conv2d_bias_act", (x, *rest), capability=90, processors=2)
    assert launch.name == "AtrousSm90"
    seen = torch.zeros(2, 12, 12, dtype=torch.bool)
    seen[0, 6 - rate : 7 + rate : max(rate, 1), 7 - rate : 8 + rate : max(rate, 1)] = True
    assert torch.equal(y.isnan(), seen[:, None].expand_as(y))


@pytest.mark.parametrize(
    ("arguments", "processors"),
    [
        (atrous(32, 64, 0, (1, 16, 16)), 5),
        (atrous(32, 64, 2, (9, 2, 2)), 1),
        (atrous(40, 64, 0, (1, 16, 16)), 1),
        (atrous(32, 80, 0, (1, 16, 16)), 1),
        (atrous(32, 1280, 0, (1, 8, 4)), 1),
        (make((32, 0), 64, (1, 16, 16), (1, 1), (2, 2)), 1),
        (make((32, 0), 64, (1, 16, 16), (1, 1), padding=(1, 1)), 1),
        (make((32, 0), 64, (1, 16, 16), dilation=(2, 3)), 1),
        (make((32, 0), 64, (1, 16, 16), dilation=(2, 2), padding=(2, 1)), 1),
        (make((32, 0), 64, (1, 16, 16), dilation=(2, 2), stride=(2, 2)), 1),
        (make((16, 16), 64, (1, 16, 16), (1, 1)), 1),
        (make((16, 16), 64, (1, 16, 16), dilation=(2, 2)), 1),
    ],
    ids=[
        "tiles",
        "pixels",
        "channels",
        "outputs",
        "slices",
        "stride",
        "padding",
        "oblong",
        "less",
        "strided",
        "two",
        "both",
    ],
)
def test_pointwise_and_dilated_that_another_kernel_runs(arguments: tuple[Any, ...], processors: int) -> None:
    check_sm90(arguments, "Conv2dBiasAct", processors=processors)


@pytest.mark.parametrize(
    "arguments", [make((32, 0), 64, (1, 8, 9), (1, 1), dilation=(2, 3)), make((96, 0), 96, (1, 9, 9), dilation=(2, 2))]
)
def test_weights_that_are_packed_whatever_the_dilation(arguments: tuple[Any, ...]) -> None:
    """Of 1x1, and those that a 3x3 convolution without dilation would take."""
    check_sm90(arguments, "AtrousSm90", processors=1)


@pytest.mark.parametrize(("rate", "outputs"), [(0, 64), (2, 96), (3, 320)])
def test_weights_of_pointwise_and_dilated_are_there_in_another_order_too(rate: int, outputs: int) -> None:
    arguments = atrous(48, outputs, rate, (1, 8, 8))
    weight = arguments[2]
    with chip(capability=90):
        packed = weight_bytes("conv2d_bias_act", arguments)
    assert packed - weight_bytes("conv2d_bias_act", arguments) == weight.nbytes


LAYOUTS = pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"])
PIXELS = pytest.mark.parametrize("pixels", ["numbers", "bytes", "bytes-and-constant"])


def stem(
    pixels: str, layout: torch.memory_format, size: tuple[int, int, int], dtype: torch.dtype = torch.float16
) -> tuple[Any, ...]:
    """Arguments of a model's first convolution."""
    x, *rest = make((3, 0), 16, size, stride=(2, 2), dtype=dtype, layout=layout)
    if pixels == "numbers":
        return x, *rest
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, x.shape, generator=generator, dtype=torch.uint8).contiguous(memory_format=layout)
    rest[2] = rest[2] / 255
    if pixels == "bytes-and-constant":
        rest[1] = torch.cat((rest[1], -100 * rest[1].sum(1, keepdim=True)), dim=1)
    return x, *rest


@pytest.mark.parametrize("size", [(2, 21, 72), (1, 32, 256), (1, 8, 520), (1, 1, 8)])
@pytest.mark.parametrize("dtype", BOTH, ids=str)
@LAYOUTS
@PIXELS
def test_stems(pixels: str, layout: torch.memory_format, dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    """Tiles of two rows; the last image has a pixel in the padding on three sides."""
    launch = check_sm90(stem(pixels, layout, size, dtype), "StemSm90", seed=size[1])
    assert launch.kernel.count("2, false") == 1


@pytest.mark.parametrize(("size", "whole"), [((2, 32, 256), True), ((1, 37, 264), False)])
@LAYOUTS
@PIXELS
def test_stems_of_many_images(
    pixels: str, layout: torch.memory_format, size: tuple[int, int, int], whole: bool
) -> None:
    """Tiles of eight rows, and what they move."""
    launch = check_sm90(stem(pixels, layout, size), "StemSm90", processors=1)
    assert f"8, {str(whole).lower()}" in launch.kernel
    batch, height, width = size
    number = 2 if pixels == "numbers" else 1
    moved = batch * (height * width * 3 * number + (height + 1) // 2 * width // 2 * 16 * 2)
    assert launch.moved("x", "y") <= 1.1 * moved


@LAYOUTS
@PIXELS
def test_results_of_a_stem_do_not_depend_on_the_order_of_threads(pixels: str, layout: torch.memory_format) -> None:
    arguments = stem(pixels, layout, (1, 20, 64))
    results = [run("conv2d_bias_act", arguments, seed=seed, capability=90)[0] for seed in range(3)]
    assert not results[0].isnan().any()
    assert all(torch.equal(result, results[0]) for result in results)


@LAYOUTS
def test_what_is_infinite_in_a_stem_stays_where_it_is_seen(layout: torch.memory_format) -> None:
    """A product has numbers without weights, which are not to be seen: zero times infinity is not a number."""
    x, _, weight, scale, bias, *rest = stem("numbers", layout, (1, 12, 24))
    for at in ((0, 0, 4, 6), (0, 1, 5, 11), (0, 2, 7, 16), (0, 2, 2, 23)):
        x[at] = torch.inf
    arguments = (x, None, weight.abs(), scale.abs(), bias, *rest)
    y, (launch,) = run("conv2d_bias_act", arguments, capability=90)
    assert launch.name == "StemSm90"
    infinite = torch.nn.functional.conv2d(x.isinf().float(), torch.ones(1, 3, 3, 3), None, 2, 1) > 0
    assert torch.equal(y.isinf(), infinite.expand_as(y))
    assert not y.isnan().any()


@pytest.mark.parametrize(
    "arguments",
    [
        make((3, 0), 16, (1, 9, 20), stride=(2, 2)),
        make((3, 0), 16, (1, 9, 16), stride=(1, 1)),
        make((3, 0), 32, (1, 9, 16), stride=(2, 2)),
        make((4, 0), 16, (1, 9, 16), stride=(2, 2)),
        make((3, 0), 16, (1, 9, 16), stride=(2, 2), activation="relu"),
    ],
    ids=["width", "stride", "outputs", "channels", "relu"],
)
def test_what_another_kernel_of_stems_runs(arguments: tuple[Any, ...]) -> None:
    check_sm90(arguments, "Conv2dStem")


def test_an_image_at_an_odd_address() -> None:
    x, *rest = stem("bytes", torch.contiguous_format, (1, 8, 16))
    moved = torch.empty(x.numel() + 1, dtype=torch.uint8)[1:].view(x.shape).copy_(x)
    check_sm90((moved, *rest), "Conv2dStem")
