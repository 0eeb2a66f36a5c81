"""The dense convolutions of compute capability 9.0 on such a GPU: every shape of the three sizes, many batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from mobilevit_fast.kernels.cuda import rules
from testing.tolerance import assert_within_twice

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
        reason="needs a GPU of compute capability 9.0",
    ),
]

ONE = [1, 1]
SHAPES = [
    *((96, inputs, 32) for inputs in (1, 2)),
    *((128, inputs, 16) for inputs in (1, 2)),
    *((160, inputs, 8) for inputs in (1, 2)),
    *((64, inputs, 32) for inputs in (1, 2)),
    *((80, inputs, 16) for inputs in (1, 2)),
    *((96, inputs, 8) for inputs in (1, 2)),
    *((48, inputs, 32) for inputs in (1, 2)),
    *((64, inputs, 16) for inputs in (1, 2)),
    *((80, inputs, 8) for inputs in (1, 2)),
]
"""Channels, inputs and image size of S, XS and XXS for images of 256x256."""


def check(arguments: tuple[Any, ...], seen: int = 4) -> None:
    """No result is NaN, and those of a few images, the last among them, keep to the rule for errors."""
    op = ops.OPS["conv2d_bias_act"]
    x = arguments[0]
    y = op("cuda", *arguments)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert not y.isnan().any()
    images = torch.linspace(0, x.shape[0] - 1, min(seen, x.shape[0]), device=x.device).round().long()

    def some(value: Any) -> Any:
        return value[images] if isinstance(value, Tensor) and value.dim() == 4 and value is not arguments[2] else value

    def double(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.dtype.is_floating_point else value

    few = tuple(some(value) for value in arguments)
    assert_within_twice(y[images], op.reference(*few), op.reference(*map(double, few)))


def make(
    channels: int, inputs: int, size: tuple[int, int, int], dtype: torch.dtype = torch.float16, seed: int = 0
) -> tuple[Any, ...]:
    """Arguments of a convolution of (batch, height, width) images."""
    torch.manual_seed(seed)
    batch, height, width = size
    images = [
        torch.randn(batch, height, width, channels, dtype=dtype, device="cuda").permute(0, 3, 1, 2)
        for _ in range(inputs)
    ]
    weight = (torch.randn(channels, inputs * channels, 3, 3, device="cuda") * (9 * inputs * channels) ** -0.5).to(dtype)
    scale, bias = 1 + 0.2 * torch.randn(channels, device="cuda"), 0.3 * torch.randn(channels, device="cuda")
    return images[0], images[1] if inputs > 1 else None, weight, scale, bias, ONE, ONE, ONE, "silu"


@pytest.mark.parametrize("batch", [1, 3, 32, 101, 256])
@pytest.mark.parametrize(("channels", "inputs", "size"), SHAPES)
def test_shapes_of_the_models(channels: int, inputs: int, size: int, batch: int) -> None:
    assert rules.has_sm90(torch.device("cuda"))
    check(make(channels, inputs, (batch, size, size), seed=batch))


@pytest.mark.parametrize(("channels", "inputs", "size"), SHAPES)
def test_shapes_of_the_models_in_bfloat16(channels: int, inputs: int, size: int) -> None:
    check(make(channels, inputs, (255, size, size), torch.bfloat16))


@pytest.mark.parametrize("size", [(200, 24, 40), (200, 31, 17), (400, 7, 5), (130, 56, 9), (2000, 1, 1)])
@pytest.mark.parametrize(("channels", "inputs"), sorted({shape[:2] for shape in SHAPES}))
def test_other_image_sizes(channels: int, inputs: int, size: tuple[int, int, int]) -> None:
    check(make(channels, inputs, size))


def test_results_are_the_same_every_time() -> None:
    for channels, inputs, size in SHAPES:
        arguments = make(channels, inputs, (256, size, size))
        op = ops.OPS["conv2d_bias_act"]
        first = op("cuda", *arguments)
        assert all(torch.equal(op("cuda", *arguments), first) for _ in range(10))


def test_without_scale_and_bias_and_of_planar_images() -> None:
    x, x2, weight, _, _, *rest = make(96, 2, (64, 32, 32))
    assert x2 is not None
    check((x.contiguous(), x2.contiguous(), weight, None, None, *rest))


def atrous(
    channels: int, outputs: int, rate: int, size: tuple[int, int, int], dtype: torch.dtype, activation: str = "silu"
) -> tuple[Any, ...]:
    """Arguments of a 1x1 convolution, whose ``rate`` is 0, or of a 3x3 one with this dilation."""
    x, *_ = make(channels, 1, size, dtype)
    window = 3 if rate > 0 else 1
    weight = torch.randn(outputs, channels, window, window, device="cuda") * (window**2 * channels) ** -0.5
    scale, bias = 1 + 0.2 * torch.randn(outputs, device="cuda"), 0.3 * torch.randn(outputs, device="cuda")
    dilation = [rate, rate] if rate > 0 else ONE
    return x, None, weight.to(dtype), scale, bias, ONE, [rate, rate], dilation, activation


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(1, 64, 64), (5, 33, 65), (64, 32, 32), (200, 7, 9)])
@pytest.mark.parametrize("rate", [0, 2, 12, 80])
@pytest.mark.parametrize(("channels", "outputs"), [(16, 64), (160, 96), (80, 128), (96, 160), (256, 256), (48, 1024)])
def test_pointwise_and_dilated(
    channels: int, outputs: int, rate: int, size: tuple[int, int, int], dtype: torch.dtype
) -> None:
    check(atrous(channels, outputs, rate, size, dtype))


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("rate", [0, 3])
def test_activations_of_pointwise_and_dilated(rate: int, activation: str) -> None:
    arguments = atrous(64, 320, rate, (8, 40, 40), torch.float16, activation)
    check(arguments)
    op = ops.OPS["conv2d_bias_act"]
    first = op("cuda", *arguments)
    assert all(torch.equal(op("cuda", *arguments), first) for _ in range(10))


def stem(
    dtype: torch.dtype, pixels: str, planar: bool, size: tuple[int, int, int], constant: bool = False
) -> tuple[Any, ...]:
    """Arguments of a model's first convolution over bytes, or over numbers of the type."""
    torch.manual_seed(1)
    batch, height, width = size
    x = torch.randn(batch, height, width, 3, device="cuda").to(dtype)
    if pixels == "bytes":
        x = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, device="cuda")
    x = x.permute(0, 3, 1, 2)
    x = x.contiguous() if planar else x
    weight = (torch.randn(16, 3, 3, 3, device="cuda") * 27**-0.5).to(dtype)
    scale, bias = 1 + 0.2 * torch.randn(16, device="cuda"), 0.3 * torch.randn(16, device="cuda")
    if pixels == "bytes":
        scale = scale / 64
    if constant:
        weight = torch.cat((weight, -120 * weight.sum(1, keepdim=True)), dim=1)
    return x, None, weight, scale, bias, [2, 2], ONE, ONE, "silu"


@pytest.mark.parametrize("batch", [1, 3, 32, 256])
@pytest.mark.parametrize("planar", [False, True], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("pixels", ["numbers", "bytes", "bytes-and-constant"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_stems(dtype: torch.dtype, pixels: str, planar: bool, batch: int) -> None:
    check(stem(dtype, pixels.split("-")[0], planar, (batch, 256, 256), constant="-" in pixels))


@pytest.mark.parametrize("size", [(64, 224, 224), (5, 37, 304), (3, 1, 8), (2, 513, 520), (40, 256, 264)])
@pytest.mark.parametrize("planar", [False, True], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("pixels", ["numbers", "bytes", "bytes-and-constant"])
def test_stems_of_other_image_sizes(pixels: str, planar: bool, size: tuple[int, int, int]) -> None:
    check(stem(torch.float16, pixels.split("-")[0], planar, size, constant="-" in pixels))
