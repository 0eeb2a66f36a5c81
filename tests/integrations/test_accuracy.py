"""Accelerated models err at most twice as much as the originals in the same type, both against float64."""

import copy

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.config import MobileViTConfig
from testing.tiers import thorough_where
from testing.tolerance import assert_within_twice, close, rms_error
from tests.integrations import zoo
from tests.ops.variants import DTYPES, ISAS, using_isa

SIZES = {"small": "mobilevit_s", "x_small": "mobilevit_xs", "xx_small": "mobilevit_xxs"}
LABELS = 1000
"""Enough that logits tell of all features: the error of a few, PyTorch's too, is a matter of luck."""
MANY = 64
"""Images of a small model, whose few logits say as much together. Errors of both are random with weights and images:
over 48 draws, ratios of one to the other were 0.26 to 2.46 for 4 images, and 0.40 to 1.16 for these."""


def check(model: nn.Module, height: int, width: int, dtype: torch.dtype = torch.float32, batch: int = 4) -> None:
    x = zoo.images(batch, height, width)
    model = model.to(dtype)
    exact = zoo.run(copy.deepcopy(model).double(), x.to(dtype).double())
    original = zoo.run(model, x.to(dtype))
    # In float32, PyTorch's error doubles from one memory layout to the other. The fused modules work in channels_last.
    layout = torch.channels_last
    plain = zoo.run(copy.deepcopy(model).to(memory_format=layout), x.to(dtype).contiguous(memory_format=layout))
    report = mvf.report(mvf.accelerate(model, strict=True))
    assert len(report.fused) == len(report) >= 11
    assert_within_twice(zoo.run(model, x.to(dtype)), plain, exact, measure=rms_error)
    mvf.restore(model)
    assert torch.equal(zoo.run(model, x.to(dtype)), original)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (97, 150)])
@pytest.mark.parametrize("size", thorough_where(SIZES, lambda size: size == "x_small"))
@pytest.mark.parametrize("library", ["native", "transformers", "timm"])
def test_classification(library: str, size: str, height: int, width: int) -> None:
    make = getattr(zoo, library)
    model = make(SIZES[size] if library == "timm" else MobileViTConfig.preset(size, num_labels=LABELS))
    check(model, height, width)


@pytest.mark.parametrize(("output_stride", "height", "width"), [(8, 96, 80), (16, 97, 83), (32, 90, 128)])
@pytest.mark.parametrize("size", thorough_where(SIZES, lambda size: size == "x_small"))
@pytest.mark.parametrize("library", ["native_segmentation", "transformers_segmentation"])
def test_segmentation(library: str, size: str, output_stride: int, height: int, width: int) -> None:
    config = MobileViTConfig.preset(size, output_stride=output_stride, num_labels=21)
    check(getattr(zoo, library)(config), height, width)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", zoo.SMALL)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    check(zoo.SMALL[name](), 64, 96, dtype, 16 if name == "timm" else MANY)  # timm's small one is large


@pytest.mark.parametrize(
    "overrides",
    [
        {"patch_size": 4},
        {"patch_size": 1},
        {"qkv_bias": False},
        {"conv_kernel_size": 5},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "quick_gelu"},
        {"hidden_act": "leaky_relu"},
        {"num_attention_heads": 2},
        {"output_stride": 8},
        {"output_stride": 16},
        {"layer_norm_eps": 0.0},
        {"mlp_ratio": 3.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("library", ["native", "transformers"])
def test_options(library: str, overrides: dict) -> None:
    check(getattr(zoo, library)(zoo.tiny_config(**overrides)), 70, 64, batch=MANY)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden_act", ["silu", "relu"])
@pytest.mark.parametrize("isa", ISAS)
def test_every_variant_of_the_kernels(isa: str, hidden_act: str, dtype: torch.dtype) -> None:
    with using_isa(isa):
        check(zoo.native(zoo.tiny_config(hidden_act=hidden_act)), 70, 64, dtype, MANY)


def test_every_output_of_a_model() -> None:
    for name, outputs in (("native", 5), ("transformers", 5)):
        model, x = zoo.SMALL[name](), zoo.images()
        with torch.no_grad():
            before = model(x, output_hidden_states=True)
            mvf.accelerate(model)
            after = model(x, output_hidden_states=True)
            pair = model(x, output_hidden_states=True, return_dict=False)
            single = model(x, return_dict=False)
        assert type(before) is type(after)
        assert len(after.hidden_states) == len(before.hidden_states) == outputs
        for a, b in zip(after.hidden_states, before.hidden_states, strict=True):
            close(a, b)
        assert torch.equal(pair[0], after.logits)
        assert len(pair[1]) == outputs
        assert len(single) == 1
        assert torch.equal(single[0], after.logits)


def test_labels_give_the_loss_of_the_original() -> None:
    for name in ("native", "transformers"):
        model, x, labels = zoo.SMALL[name](), zoo.images(), torch.tensor([1, 3])
        with torch.no_grad():
            before = model(x, labels=labels)
            after = mvf.accelerate(model)(x, labels=labels)
        close(after.loss, before.loss)


@pytest.mark.parametrize("name", zoo.SMALL)
def test_layouts_and_batches(name: str) -> None:
    model = mvf.accelerate(zoo.SMALL[name]())
    x = zoo.images(3, 64, 96)
    expected = zoo.run(model, x)
    close(zoo.run(model, x.contiguous(memory_format=torch.channels_last)), expected)
    sliced = torch.cat((x, x), dim=3)[..., :96]
    close(zoo.run(model, sliced), expected)
    close(torch.cat([zoo.run(model, image[None]) for image in x]), expected)
