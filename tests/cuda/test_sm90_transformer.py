"""Transformer stacks of MobileViT's shapes at the numbers of images that take other kernels, on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from mobilevit_fast.config import PRESETS
from testing.shapes import preset_calls
from testing.tolerance import assert_within_twice, rms_error
from tests.cuda.conftest import EMULATED

pytestmark = pytest.mark.skipif(EMULATED, reason="whole batches take the emulator hours")

OP = ops.OPS["mobilevit_transformer"]
DTYPES = [torch.float16, torch.bfloat16]


def model_shapes() -> list[Any]:
    """Channels, features, layers and image size of every stack of the three sizes, for images of 256 pixels."""
    names = ("inputs", "hidden_size", "layers", "height")
    calls = (call for preset in PRESETS for call in preset_calls(preset, 1, 256, torch.float16))
    shapes = {tuple(call.shape[name] for name in names) for call in calls if call.op == "mobilevit_transformer"}
    return [pytest.param(*shape, id="-".join(map(str, shape))) for shape in sorted(shapes)]


SHAPES = pytest.mark.parametrize(("channels", "features", "layers", "size"), model_shapes())


def make(
    channels: int,
    features: int,
    layers: int,
    image: tuple[int, int, int],
    dtype: torch.dtype = torch.float16,
    biased: bool = True,
    sharpness: float = 1.0,
) -> tuple[Any, ...]:
    """Arguments of the operator for images of (batch, height, width); scores grow with the square of the sharpness."""
    generator = torch.Generator("cuda").manual_seed(channels + features)
    batch, height, width = image

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cuda")

    def weight(*shape: int) -> Tensor:
        return (randn(*shape) * shape[-1] ** -0.5).to(dtype)

    def norm(*shape: int) -> tuple[Tensor, Tensor]:
        return 1 + 0.1 * randn(*shape), 0.1 * randn(*shape)

    qkv = weight(layers, 3 * features, features)
    qkv[:, : 2 * features] *= sharpness
    return (
        randn(batch, height, width, channels).to(dtype).permute(0, 3, 1, 2),
        weight(features, channels)[..., None, None],
        randn(features) if biased else None,
        *norm(layers, features),
        qkv,
        randn(layers, 3 * features) if biased else None,
        *(weight(layers, features, features), 0.1 * randn(layers, features)),
        *norm(layers, features),
        *(weight(layers, 2 * features, features), 0.1 * randn(layers, 2 * features)),
        *(weight(layers, features, 2 * features), 0.1 * randn(layers, features)),
        *norm(features),
        weight(channels, features)[..., None, None],
        *((1 + 0.2 * randn(channels), 0.3 * randn(channels)) if biased else (None, None)),
        *(4, [2, 2], 1e-5, "silu", "silu"),
    )


def check(arguments: tuple[Any, ...], count: int = 3, **rule: Any) -> None:
    """Hold a result to the rule for errors on some images, the first and the last among them; no number is missing."""
    x, *rest = arguments
    y = OP("cuda", x, *rest)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert not y.isnan().any()
    images = sorted({i * (len(x) - 1) // (count - 1) for i in range(count)})
    exact = (a.double() if isinstance(a, Tensor) else a for a in (x[images], *rest))
    with torch.no_grad():
        assert_within_twice(y[images], OP.reference(x[images], *rest), OP.reference(*exact), **rule)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [1, 3, 32, 127, 256])
@SHAPES
def test_shapes_of_the_models(
    channels: int, features: int, layers: int, size: int, batch: int, dtype: torch.dtype
) -> None:
    """One of 127 images of 16 tokens leaves half of the last block without any."""
    check(make(channels, features, layers, (batch, size, size), dtype))


@SHAPES
def test_without_biases(channels: int, features: int, layers: int, size: int) -> None:
    check(make(channels, features, layers, (256, size, size), biased=False))


@SHAPES
def test_images_that_are_not_square(channels: int, features: int, layers: int, size: int) -> None:
    """As many tokens as those of the square ones, and more, which no kernel of compute capability 9.0 takes."""
    for height, width in ((size // 2, 2 * size), (2 * size, size // 2), (size, size + 2)):
        check(make(channels, features, layers, (200, height, width)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@SHAPES
def test_fewer_tokens_than_there_is_room_for(
    channels: int, features: int, layers: int, size: int, dtype: torch.dtype
) -> None:
    """Those of 224 pixels among them, whose smallest images are resized to whole patches; large scores too."""
    images = [(256, size - size // 8, size - size // 8), (256, size - 2, size), (199, size - 2, size - 2)]
    for image in images:
        check(make(channels, features, layers, image, dtype))
    check(make(channels, features, layers, images[0], dtype, sharpness=30.0), count=32, measure=rms_error)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sharpness", [4.0, 30.0, 400.0])
@SHAPES
def test_scores_of_any_size(
    channels: int, features: int, layers: int, size: int, sharpness: float, dtype: torch.dtype
) -> None:
    """Up to a million, of which float16 holds no more than a fifteenth."""
    check(make(channels, features, layers, (256, size, size), dtype, sharpness=sharpness), count=32, measure=rms_error)


@SHAPES
def test_results_are_the_same_every_time(channels: int, features: int, layers: int, size: int) -> None:
    arguments = make(channels, features, layers, (256, size, size))
    expected = OP("cuda", *arguments)
    assert all(torch.equal(OP("cuda", *arguments), expected) for _ in range(10))


@SHAPES
def test_what_is_not_a_number_stays_in_its_sequence(channels: int, features: int, layers: int, size: int) -> None:
    """Of an image's four sequences, which share tiles with others'."""
    x, *rest = make(channels, features, layers, (256, size, size))
    expected = OP("cuda", x, *rest)
    x[100, 3, 0, 1] = torch.nan
    y = OP("cuda", x, *rest)
    assert y[100, :, ::2, 1::2].isnan().all()
    y[100, :, ::2, 1::2] = expected[100, :, ::2, 1::2]
    assert torch.equal(y, expected)
