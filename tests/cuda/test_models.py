"""Whole models through the CUDA library."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.config import PRESETS, MobileViTConfig
from testing.tiers import thorough, thorough_where
from testing.tolerance import assert_within_twice, rms_error
from tests.cuda.conftest import EMULATED
from tests.integrations import zoo


def accelerated(model: nn.Module) -> nn.Module:
    model = mvf.accelerate(model, backend="cuda", strict=True)
    ran = [region for region in mvf.report(model) if region.backends]
    assert ran
    assert {backend for region in ran for backend in region.backends.values()} == {"cuda"}
    return model


# Each size and each type once; all of both in test-all.
OF_TEST = {("small", torch.float16), ("x_small", torch.bfloat16), ("xx_small", torch.float16)}
ALL = [(preset, dtype) for preset in PRESETS for dtype in (torch.float16, torch.bfloat16)]


@pytest.mark.parametrize(("preset", "dtype"), thorough_where(ALL, lambda case: case not in OF_TEST), ids=str)
def test_every_size(preset: str, dtype: torch.dtype, device: torch.device) -> None:
    model = zoo.native(MobileViTConfig.preset(preset, num_labels=10)).to(device, dtype)
    x = zoo.images(1, 48, 48).to(device, dtype).contiguous(memory_format=torch.channels_last)
    exact = zoo.run(copy.deepcopy(model).double(), x.double())
    plain = zoo.run(copy.deepcopy(model).to(memory_format=torch.channels_last), x)
    assert_within_twice(zoo.run(accelerated(model), x), plain, exact, measure=rms_error)


@pytest.mark.parametrize("mean", [0.0, 0.45])
def test_bytes_are_normalised_by_the_first_kernel(mean: float, device: torch.device) -> None:
    """As close to float64 as the kernel on normalised numbers, which are rounded once more."""
    pixels = mvf.PixelNormalization(mean=mean, std=0.25 if mean else 1.0)
    model = zoo.native(MobileViTConfig.preset("xx_small", num_labels=10)).to(device).half()
    x = (255 * zoo.images(2, 48, 48).sigmoid()).to(torch.uint8).to(device)
    exact = zoo.run(copy.deepcopy(model).double(), pixels.normalized(x, torch.float64))
    plain = zoo.run(copy.deepcopy(model), pixels.normalized(x, torch.float16))
    model = mvf.accelerate(model, backend="cuda", uint8_images=pixels)
    remarks = {region.path: region.remark for region in mvf.report(model) if region.remark}
    assert remarks == {"mobilevit.conv_stem": "uint8 images: cuda, normalisation in the weights"}
    assert_within_twice(zoo.run(model, x), plain, exact, measure=rms_error)


@pytest.mark.parametrize("preset", thorough_where(PRESETS, lambda preset: preset != "small"))
def test_a_block_at_full_size(preset: str, device: torch.device) -> None:
    """The last one of a 256 pixel image: an inverted residual, 3x3, the stack, and the 3x3 over two inputs."""
    model = zoo.native(MobileViTConfig.preset(preset, num_labels=10)).to(device).half()
    block = model.mobilevit.encoder.layer[4]
    channels = block.downsampling_layer.expand_1x1.convolution.in_channels
    x = torch.randn(2, channels, 16, 16, generator=torch.Generator().manual_seed(0)).to(device).half()
    exact, plain = copy.deepcopy(block).double(), copy.deepcopy(block)
    with torch.no_grad():
        wanted, usual = exact(x.double()), plain(x)
        actual = mvf.accelerate(block, backend="cuda", strict=True)(x)
    assert_within_twice(actual, usual, wanted, measure=rms_error)


@pytest.mark.skipif(not EMULATED, reason="launches are counted by the emulator")
def test_launches_of_a_model(device: torch.device) -> None:
    """One a region with many images, one a layer of the transformers with few; torch's for the classes."""
    from emulator.run import SHARED_BYTES, emulated, take_launches

    model = accelerated(zoo.native(MobileViTConfig.preset("xx_small", num_labels=10)).half())
    x = zoo.images(1, 64, 64).half()
    launches = {}
    for processors in (1, 1 << 20):
        emulated.set_chip(processors, SHARED_BYTES)
        take_launches()
        zoo.run(model, x)
        launches[processors] = [launch.name for launch in take_launches()]
    emulated.set_chip(132, SHARED_BYTES)
    many, few = launches.values()
    assert len(many) == 1 + 7 + 3 * 3 + 1
    assert many.count("MobileViTTransformerWarps") == 3
    assert len(few) == 1 + 7 + 3 * 2 + (2 + 4 + 3 + 3) + 1
    assert few.count("MobileViTTransformerLayer") == 2 + 4 + 3 + 3


@pytest.mark.parametrize("dtype", [torch.float16, thorough(torch.bfloat16)], ids=str)
def test_segmentation(dtype: torch.dtype, device: torch.device) -> None:
    """Features by the kernels that classification has, at output stride 16, and the pyramid behind them."""
    config = MobileViTConfig.preset("xx_small", num_labels=21, output_stride=16)
    model = zoo.native_segmentation(config).to(device, dtype)
    x = zoo.images(1, 64, 64).to(device, dtype).contiguous(memory_format=torch.channels_last)
    exact = zoo.run(copy.deepcopy(model).double(), x.double())
    plain = zoo.run(copy.deepcopy(model).to(memory_format=torch.channels_last), x)
    assert_within_twice(zoo.run(accelerated(model), x), plain, exact, measure=rms_error)


@pytest.fixture
def model(device: torch.device) -> nn.Module:
    """A small one, whose channels the kernels take."""
    return zoo.native(MobileViTConfig.preset("xx_small", num_labels=10)).to(device).half()


def test_exported_and_compiled_modules_give_the_same(model: nn.Module, device: torch.device) -> None:
    """A stage of inverted residual and block, as one graph; code generation is tested on a GPU."""
    stage = accelerated(model).mobilevit.encoder.layer[2]
    x = torch.randn(1, 24, 12, 12, generator=torch.Generator().manual_seed(0)).to(device).half()
    with torch.no_grad():
        expected = stage(x)
        assert torch.equal(torch.export.export(stage, (x,)).module()(x), expected)
        assert torch.equal(torch.compile(stage, backend="aot_eager", fullgraph=True)(x), expected)


def test_weights_are_packed_once_and_again_when_they_change(model: nn.Module, device: torch.device) -> None:
    x = zoo.images(1, 32, 32).to(device).half()
    layer = accelerated(model).mobilevit.encoder.layer[0].layer[0]
    before = zoo.run(model, x)
    with torch.no_grad():
        first = layer.bounds_for(x)
        assert layer.bounds_for(x) is first
        layer.reduce_1x1.convolution.weight.mul_(2)
    changed = zoo.run(model, x)
    assert not torch.equal(changed, before)
    assert torch.equal(changed, zoo.run(accelerated(copy.deepcopy(mvf.restore(model))), x))
