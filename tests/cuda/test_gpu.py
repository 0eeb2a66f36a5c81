"""What only a GPU can show of the CUDA library: replayed graphs, streams, devices, determinism, large tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast import ops
from mobilevit_fast.config import MobileViTConfig
from tests.cuda.conftest import EMULATED
from tests.integrations import zoo
from tests.on_gpu import *  # noqa: F403 - the tests of every backend

pytestmark = pytest.mark.skipif(EMULATED, reason="the emulator has no streams or graphs")


@pytest.fixture
def model() -> torch.nn.Module:
    model = zoo.native(MobileViTConfig.preset("xx_small", num_labels=10)).cuda().half()
    return mvf.accelerate(model, backend="cuda", strict=True)


@pytest.mark.parametrize("batch", [1, 64])
def test_results_are_the_same_every_time(model: torch.nn.Module, batch: int) -> None:
    x = zoo.images(batch, 256, 256).cuda().half()
    expected = zoo.run(model, x)
    assert all(torch.equal(zoo.run(model, x), expected) for _ in range(20))


ELEMENTS = 2180 << 20
"""More than a signed number of 32 bits counts."""


def weight(*shape: int) -> torch.Tensor:
    """Random numbers that leave a signal about as large as it is."""
    inputs = shape[-1] if len(shape) < 4 else math.prod(shape[-3:])
    return (torch.randn(*shape, device="cuda") * inputs**-0.5).half()


def transformer(channels: int, d: int, layers: int = 1) -> tuple[Any, ...]:
    """Arguments of the operator behind the image."""

    def vector(size: int) -> torch.Tensor:
        return torch.randn(layers, size, device="cuda") / 8

    norm = (1 + vector(d), vector(d))
    qkv = (weight(layers, 3 * d, d), None)
    mlp = (weight(layers, 2 * d, d), vector(2 * d), weight(layers, d, 2 * d), vector(d))
    ends = (1 + vector(d)[0], vector(d)[0], weight(channels, d, 1, 1), None, None)
    layer = (*norm, *qkv, weight(layers, d, d), vector(d), *norm, *mlp)
    return weight(d, channels, 1, 1), None, *layer, *ends, 4, [2, 2], 1e-5, "silu", "silu"


class Large(NamedTuple):
    """An operator, channels, height and width of its image, and its arguments behind that.

    With ``exact`` the result does not depend on how many images there are; else tiles, and with them the order of sums,
    may be others for one image.
    """

    op: str
    channels: int
    height: int
    width: int
    rest: tuple[Any, ...]
    exact: bool = False
    dtype: torch.dtype = torch.float16
    second: bool = False
    planar: bool = False
    gib: int = 30


ONE, NONE = [1, 1], (None, None)


def inverted_residual() -> Large:
    convolutions = (weight(64, 64, 1, 1), *NONE, weight(64, 1, 3, 3), *NONE, weight(64, 64, 1, 1), *NONE)
    return Large("inverted_residual", 64, 256, 256, (*convolutions, ONE, ONE, True, "silu"), exact=True)


def depthwise() -> Large:
    return Large("depthwise_conv2d", 64, 256, 256, (weight(64, 1, 3, 3), *NONE, ONE, ONE, ONE, "silu"), exact=True)


def separable() -> Large:
    convolutions = (weight(64, 1, 3, 3), *NONE, weight(64, 64, 1, 1), *NONE)
    return Large("depthwise_separable_conv2d", 64, 256, 256, (*convolutions, ONE, ONE, ONE, "silu", "none"), exact=True)


def convolution() -> Large:
    return Large("conv2d_bias_act", 64, 256, 256, (None, weight(64, 64, 3, 3), *NONE, ONE, ONE, ONE, "silu"))


def fusion() -> Large:
    rest = (weight(64, 128, 3, 3), *NONE, ONE, ONE, ONE, "silu")
    return Large("conv2d_bias_act", 64, 256, 256, rest, second=True)


def stem() -> Large:
    return Large("conv2d_bias_act", 3, 256, 256, (None, weight(16, 3, 3, 3), *NONE, [2, 2], ONE, ONE, "silu"))


def planar_stem() -> Large:
    return stem()._replace(planar=True)


def stem_of_bytes() -> Large:
    scale = torch.full((16,), 1 / 255, device="cuda")
    rest = (None, weight(16, 3, 3, 3), scale, None, [2, 2], ONE, ONE, "silu")
    return Large("conv2d_bias_act", 3, 256, 256, rest, dtype=torch.uint8)


def stack() -> Large:
    return Large("mobilevit_transformer", 64, 32, 32, transformer(64, 64))


def layer_by_layer() -> Large:
    """Of 2304 tokens, which no block holds; what one launch leaves to the next takes most of the memory."""
    return Large("mobilevit_transformer", 64, 96, 96, transformer(64, 64), gib=50)


def resized() -> Large:
    return Large("mobilevit_transformer", 64, 31, 31, transformer(64, 64))


def classifier_head() -> Large:
    """Its result is small."""
    return Large("classifier_head", 160, 8, 8, (weight(320, 160, 1, 1), *NONE, weight(10, 320), None, "silu"))


def aspp() -> Large:
    """The features of its branches, side by side, are more than 32 bits count as well."""
    branches = (weight(32, 64, 1, 1), *NONE, weight(1, 32, 64, 3, 3), *NONE, weight(32, 64, 1, 1), *NONE)
    return Large("aspp", 64, 128, 128, (*branches, weight(64, 96, 1, 1), *NONE, [2], "relu"))


@pytest.mark.parametrize(
    "make",
    [
        *(inverted_residual, depthwise, separable, convolution, fusion, stem, planar_stem, stem_of_bytes),
        *(stack, layer_by_layer, resized, classifier_head, aspp),
    ],
    ids=lambda make: make.__name__,
)
def test_more_elements_than_32_bits_count(make: Callable[[], Large]) -> None:
    """The last image of an input of more than 2³¹ elements gives what it gives by itself.

    Kernels that count in pieces of eight numbers, the resizing and the sums of aspp, stay below 2³¹ of them here.
    """
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    case = make()
    if torch.cuda.mem_get_info()[0] < case.gib << 30:
        pytest.skip(f"needs {case.gib} GiB of free memory")
    batch = ELEMENTS // (case.channels * case.height * case.width) + 1
    last = torch.randn(case.channels, case.height, case.width, device="cuda")

    def images() -> torch.Tensor:
        order = (case.channels, case.height, case.width) if case.planar else (case.height, case.width, case.channels)
        x = torch.zeros(batch, *order, dtype=case.dtype, device="cuda")
        x = x if case.planar else x.permute(0, 3, 1, 2)
        x[-1] = (255 * last.sigmoid()).byte() if case.dtype == torch.uint8 else last.half()
        return x

    many = (images(), images()) if case.second else (images(),)
    one = tuple(x[-1:].clone() for x in many)
    y = ops.OPS[case.op]("cuda", *many, *case.rest)
    alone = ops.OPS[case.op]("cuda", *one, *case.rest)
    assert alone.std() > 1e-2
    if case.exact:
        assert torch.equal(y[-1:], alone)
    else:
        torch.testing.assert_close(y[-1:], alone, rtol=1e-2, atol=1e-2 * alone.abs().max().item())
