"""Accelerated models err at most twice as much as the originals in the same type, both against float64."""

import copy
import itertools
from collections.abc import Iterable
from typing import Any

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
IMAGES = {8: (96, 80), 16: (97, 83), 32: (90, 128)}
"""Height and width of images for each output stride."""
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


def thorough_but_for(kept: list[tuple[Any, ...]], *columns: Iterable[Any]) -> list[Any]:
    """All combinations; those that `make test` leaves out are marked."""
    return thorough_where(itertools.product(*columns), lambda case: case not in kept)


# What a library adds and what a size does are independent of each other.
CLASSIFIED: list[tuple[Any, ...]] = [
    ("native", "small", (97, 150)),
    ("native", "xx_small", (128, 128)),
    ("transformers", "xx_small", (128, 128)),
    ("timm", "xx_small", (97, 150)),
]
SEGMENTED: list[tuple[Any, ...]] = [
    ("native_segmentation", "small", 8),
    ("native_segmentation", "xx_small", 32),
    ("transformers_segmentation", "xx_small", 16),
]


@pytest.mark.parametrize(
    ("library", "size", "image"),
    thorough_but_for(CLASSIFIED, ["native", "transformers", "timm"], SIZES, [(128, 128), (97, 150)]),
)
def test_classification(library: str, size: str, image: tuple[int, int]) -> None:
    make = getattr(zoo, library)
    model = make(SIZES[size] if library == "timm" else MobileViTConfig.preset(size, num_labels=LABELS))
    check(model, *image)


@pytest.mark.parametrize(
    ("library", "size", "output_stride"),
    thorough_but_for(SEGMENTED, ["native_segmentation", "transformers_segmentation"], SIZES, IMAGES),
)
def test_segmentation(library: str, size: str, output_stride: int) -> None:
    config = MobileViTConfig.preset(size, output_stride=output_stride, num_labels=21)
    check(getattr(zoo, library)(config), *IMAGES[output_stride])


# No C++ kernel is for float16, which the references compute.
@pytest.mark.parametrize(
    ("name", "dtype"),
    thorough_where(
        itertools.product(zoo.SMALL, [torch.bfloat16, torch.float16]),
        lambda case: case[1] == torch.float16 and case[0] not in ("timm", "transformers-segmentation"),
    ),
)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    check(zoo.SMALL[name](), 32, 48, dtype, 16 if name == "timm" else MANY)  # timm's small one is large


OPTIONS: list[dict[str, Any]] = [
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
]


# Both libraries' modules are read by the same code.
@pytest.mark.parametrize(
    ("library", "overrides"),
    thorough_where(
        itertools.product(["native", "transformers"], OPTIONS),
        lambda case: (case[0] == "native") == (OPTIONS.index(case[1]) % 2 == 0),
    ),
    ids=str,
)
def test_options(library: str, overrides: dict) -> None:
    check(getattr(zoo, library)(zoo.tiny_config(**overrides)), 38, 32, batch=MANY)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden_act", ["silu", "relu"])
@pytest.mark.parametrize("isa", ISAS)
def test_every_variant_of_the_kernels(isa: str, hidden_act: str, dtype: torch.dtype) -> None:
    with using_isa(isa):
        check(zoo.native(zoo.tiny_config(hidden_act=hidden_act)), 38, 32, dtype, MANY)


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
