"""What only a GPU can show of the CUDA library: replayed graphs, streams, devices, determinism, large tensors."""

from __future__ import annotations

from typing import Any

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
    inputs = shape[-1] if len(shape) < 4 else shape[1] * shape[2] * shape[3]
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


def large_cases() -> dict[str, tuple[str, tuple[int, int, int], tuple[Any, ...]]]:
    """By name: an operator, channels and size of its image, and its arguments behind that."""
    one, none = [1, 1], (None, None)
    return {
        "inverted_residual": (
            "inverted_residual",
            (64, 256, 256),
            (
                *(weight(64, 64, 1, 1), *none),
                *(weight(64, 1, 3, 3), *none),
                *(weight(64, 64, 1, 1), *none),
                *(one, one, True, "silu"),
            ),
        ),
        "depthwise_conv2d": ("depthwise_conv2d", (64, 256, 256), (weight(64, 1, 3, 3), *none, one, one, one, "silu")),
        "conv2d": ("conv2d_bias_act", (64, 256, 256), (None, weight(64, 64, 3, 3), *none, one, one, one, "silu")),
        "stem-of-bytes": (
            "conv2d_bias_act",
            (3, 256, 256),
            (None, weight(16, 3, 3, 3), torch.full((16,), 1 / 255, device="cuda"), None, [2, 2], one, one, "silu"),
        ),
        "transformer": ("mobilevit_transformer", (64, 32, 32), transformer(64, 64)),
        "classifier_head": (
            "classifier_head",
            (160, 8, 8),
            (weight(320, 160, 1, 1), *none, weight(10, 320), None, "silu"),
        ),
        "aspp": (
            "aspp",
            (64, 128, 128),
            (
                *(weight(16, 64, 1, 1), *none),
                *(weight(1, 16, 64, 3, 3), *none),
                *(weight(16, 64, 1, 1), *none),
                *(weight(64, 48, 1, 1), *none),
                *([2], "relu"),
            ),
        ),
    }


@pytest.mark.parametrize(
    "case",
    [
        "inverted_residual",
        "depthwise_conv2d",
        "conv2d",
        "stem-of-bytes",
        "transformer",
        "classifier_head",
        "aspp",
    ],
)
def test_more_elements_than_32_bits_count(case: str) -> None:
    """The last image of an input and a result of more than 2³¹ elements is that image by itself.

    But for roundings, as another number of images may be summed in another order.
    """
    if torch.cuda.mem_get_info()[0] < 20 << 30:
        pytest.skip("needs 20 GiB of free memory")
    torch.manual_seed(0)
    op, (channels, height, width), rest = large_cases()[case]
    dtype = torch.uint8 if case == "stem-of-bytes" else torch.float16
    batch = ELEMENTS // (channels * height * width) + 1
    x = torch.zeros(batch, height, width, channels, dtype=dtype, device="cuda").permute(0, 3, 1, 2)
    last = torch.randn(channels, height, width, device="cuda")
    x[-1] = (255 * last.sigmoid()).byte() if dtype == torch.uint8 else last.half()
    y = ops.OPS[op]("cuda", x, *rest)
    alone = ops.OPS[op]("cuda", x[-1:].clone(), *rest)
    assert alone.std() > 1e-2
    torch.testing.assert_close(y[-1:], alone, rtol=1e-2, atol=1e-2 * alone.abs().max().item())
