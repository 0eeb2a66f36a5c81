"""Models that take the bytes of images: the same logits as from normalised images, whoever normalises."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mobilevit_fast as mvf
from mobilevit_fast.acceleration.parameters import affine
from mobilevit_fast.acceleration.parts import AffineConv, ConvParts
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.ops import OPS
from testing.pairs import abridged
from testing.tiers import thorough
from tests.integrations import zoo

APPLE = mvf.PixelNormalization()
IMAGENET = mvf.PixelNormalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip_channel_order=False)
SETTINGS = [APPLE, IMAGENET, mvf.PixelNormalization(1.0, mean=127.5, std=127.5)]


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def processed(x: Tensor, pixels: mvf.PixelNormalization) -> Tensor:
    """What the image processor makes of images that need no resizing."""
    processor = mvf.MobileViTImageProcessor(
        do_resize=False,
        do_center_crop=False,
        rescale_factor=pixels.rescale_factor,
        do_normalize=True,
        image_mean=pixels.mean,
        image_std=pixels.std,
        do_flip_channel_order=pixels.flip_channel_order,
        input_data_format="channels_first",
    )
    assert mvf.PixelNormalization.from_processor(processor).flip_channel_order == pixels.flip_channel_order
    return processor(list(x), return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("pixels", SETTINGS, ids=["apple", "imagenet", "one for all"])
def test_bytes_give_what_the_image_processor_gives(pixels: mvf.PixelNormalization) -> None:
    x = images(2, 3, 33, 48)
    torch.testing.assert_close(pixels.normalized(x, torch.float32), processed(x, pixels), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("pixels", SETTINGS, ids=["apple", "imagenet", "one for all"])
@pytest.mark.parametrize("norm", [True, False])
def test_a_folded_convolution_is_the_same_function(norm: bool, pixels: mvf.PixelNormalization) -> None:
    """In float64, padding included."""
    torch.manual_seed(0)
    batch_norm = torch.nn.BatchNorm2d(8).eval()
    batch_norm.running_mean.normal_(), batch_norm.running_var.uniform_(0.5, 2)
    conv = affine(
        ConvParts(torch.nn.Conv2d(3, 8, 3, bias=not norm), batch_norm if norm else None, "silu"), torch.float32
    )
    x = images(2, 3, 9, 10)
    geometry = ([2, 2], [1, 1], [1, 1], "silu")

    def run(images: Tensor, conv: AffineConv) -> Tensor:
        exact = [None if a is None else a.double() for a in conv]
        return OPS["conv2d_bias_act"]("reference", images, None, *exact, *geometry)

    normalized = pixels.normalized(x, torch.float32).double()
    torch.testing.assert_close(run(x, pixels.folded(conv)), run(normalized, conv), atol=2e-5, rtol=1e-5)


@pytest.fixture
def model() -> Any:
    return zoo.native(MobileViTConfig.preset("xx_small", num_labels=10))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_a_model_takes_bytes_and_numbers(model: Any, dtype: torch.dtype | None) -> None:
    x = images(2, 3, 64, 64)
    mvf.accelerate(model, uint8_images=APPLE, compute_dtype=dtype)
    expected = zoo.run(model, APPLE.normalized(x, torch.float32))
    assert torch.equal(zoo.run(model, x), expected)
    assert torch.equal(zoo.run(copy.deepcopy(model), x), expected)


def test_in_training_bytes_are_normalised_too(model: Any) -> None:
    mvf.accelerate(model, uint8_images=APPLE).train()
    logits = model(images(2, 3, 64, 64)).logits
    logits.sum().backward()
    assert model.mobilevit.conv_stem.convolution.weight.grad is not None


@pytest.mark.parametrize("pixels", [thorough(APPLE), IMAGENET], ids=["apple", "imagenet"])
def test_bytes_are_compiled_and_exported(model: Any, pixels: mvf.PixelNormalization) -> None:
    model, x = abridged(model), images(2, 3, 32, 32)
    mvf.accelerate(model, include=["mobilevit.conv_stem"], uint8_images=pixels)
    with torch.no_grad():
        expected = model(x).logits
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x).logits, expected, atol=1e-5, rtol=1e-5)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x).logits, expected, atol=1e-5, rtol=1e-5)


def test_settings_may_come_as_arrays() -> None:
    pixels = mvf.PixelNormalization(mean=np.array([1.0, 2.0, 3.0]), std=torch.ones(3))
    assert (pixels.mean, pixels.std) == ((1.0, 2.0, 3.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_other_libraries_models_take_bytes_too(library: str) -> None:
    theirs = zoo.timm() if library == "timm" else zoo.transformers(MobileViTConfig.preset("xx_small", num_labels=3))
    x = images(1, 3, 64, 64)
    mvf.accelerate(theirs, uint8_images=IMAGENET)
    assert torch.equal(zoo.run(theirs, x), zoo.run(theirs, IMAGENET.normalized(x, torch.float32)))


def test_refusals(model: Any) -> None:
    with pytest.raises(TypeError, match="expected an image processor with do_rescale"):
        mvf.accelerate(model, uint8_images=1 / 255)
    with pytest.raises(ValueError, match="expected a first convolution to fuse for uint8_images, got left out"):
        mvf.accelerate(model, uint8_images=APPLE, include=["inverted_residual"])
    with pytest.raises(ValueError, match="expected a factor and deviations other than 0"):
        mvf.PixelNormalization(std=(1, 0, 1))
    with pytest.raises(ValueError, match="expected a mean and a deviation for each channel"):
        mvf.PixelNormalization(mean=(1, 0), std=(1, 1, 1))
    with pytest.raises(ValueError, match="expected a mean for each of 3 channels, got 2"):
        mvf.accelerate(model, uint8_images=mvf.PixelNormalization(mean=(1, 0)))
    with pytest.raises(ValueError, match=r"expected pixel_values of a floating point dtype, got torch\.uint8"):
        zoo.run(mvf.accelerate(model), images(1, 3, 32, 32))


def test_the_dispatcher_agrees() -> None:
    """Schema, fake kernel: the result is of the weights' type; and other kernels of the CPU say why they do not run."""
    weight = torch.randn(8, 4, 3, 3)
    arguments = (images(2, 3, 9, 10), None, weight, None, None, [2, 2], [1, 1], [1, 1], "silu")
    torch.library.opcheck(
        OPS["conv2d_bias_act"].overload("reference"), arguments, test_utils=("test_schema", "test_faketensor")
    )
    with pytest.raises(ValueError, match=r"cpu: expected an image of a floating point type, got torch\.uint8"):
        OPS["conv2d_bias_act"]("cpu", *arguments)
    with pytest.raises(ValueError, match="expected input of 4 channels, got 2"):
        OPS["conv2d_bias_act"]("auto", arguments[0][:, :2], *arguments[1:])


def test_the_report_says_what_becomes_of_bytes() -> None:
    """Of the first convolution alone; without a kernel for bytes they are normalised before it."""
    model = zoo.SMALL["native"]()
    assert not any(region.remark for region in mvf.report(mvf.accelerate(model)))
    report = mvf.report(mvf.accelerate(model, uint8_images=APPLE))
    remarks = {region.path: region.remark for region in report if region.remark}
    assert remarks == {"mobilevit.conv_stem": "uint8 images are normalised before it"}
    assert "uint8 images are normalised before it" in str(report)
    (entry,) = (entry for entry in report.to_list() if entry["remark"])
    assert entry["path"] == "mobilevit.conv_stem"
