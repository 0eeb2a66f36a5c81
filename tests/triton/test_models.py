"""Whole models through the Triton kernels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.config import MobileViTConfig
from testing.pairs import abridged, shortened
from testing.tiers import thorough
from testing.tolerance import assert_within_twice, rms_error
from tests.integrations import zoo


def check(model: nn.Module, size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
    layout = torch.channels_last
    x = zoo.images(4, *size).to(device, dtype).contiguous(memory_format=layout)
    model = model.to(device, dtype)
    exact = zoo.run(copy.deepcopy(model).double(), x.double())
    plain = zoo.run(copy.deepcopy(model).to(memory_format=layout), x)
    report = mvf.report(mvf.accelerate(model, backend="triton", strict=True))
    assert {backend for region in report for backend in region.backends.values()} == {"triton"}
    assert_within_twice(zoo.run(model, x), plain, exact, measure=rms_error)


@pytest.mark.thorough  # the shapes are those of the operators' tests
@pytest.mark.parametrize(
    ("preset", "dtype"),
    [
        ("small", torch.float16),
        ("x_small", torch.bfloat16),
        *(("xx_small", dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)),
    ],
)
def test_every_size(preset: str, dtype: torch.dtype, device: torch.device) -> None:
    check(zoo.native(MobileViTConfig.preset(preset, num_labels=1000)), (64, 64), dtype, device)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("native", torch.bfloat16),
        thorough(("native", torch.float16)),
        ("native-segmentation", torch.float16),
        thorough(("native-segmentation", torch.bfloat16)),
        ("timm", torch.float16),  # the kernels and shapes of the preset xx_small
        thorough(("timm", torch.bfloat16)),
    ],
)
def test_half_precision(name: str, dtype: torch.dtype, device: torch.device) -> None:
    check(shortened(zoo.SMALL[name]()), (32, 48), dtype, device)


@pytest.mark.parametrize("name", ["native-backbone", thorough("transformers-segmentation")])
def test_float32(name: str, device: torch.device) -> None:
    check(shortened(zoo.SMALL[name]()), (38, 32), torch.float32, device)


@pytest.mark.parametrize("name", ["native", thorough("native-segmentation")])
def test_exported_and_compiled_models_give_the_same(name: str, device: torch.device) -> None:
    """As one graph, whose calls of the kernels stay what they are; code generation is tested on a GPU."""
    model = (abridged if name == "native" else shortened)(zoo.SMALL[name]())
    mvf.accelerate(model.to(device), backend="triton")
    x = zoo.images(1, 32, 48).to(device)
    with torch.no_grad():
        expected = zoo.run(model, x)
        exported = torch.export.export(model, (x,)).module()
        assert torch.equal(zoo.first_output(exported(x)), expected)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert torch.equal(zoo.first_output(compiled(x)), expected)
