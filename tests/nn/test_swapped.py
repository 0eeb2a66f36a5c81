"""Modules made by their constructors in the place of those of transformers and timm, with their weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.nn import (
    ASPP,
    ClassifierHead,
    ConvNormAct,
    DepthwiseSeparableConv2d,
    InvertedResidual,
    MobileViTBlock,
)
from testing.peers import import_timm
from testing.tolerance import assert_within_twice, close, max_error, rms_error
from tests.integrations import zoo

TINY = zoo.tiny_config()
HEADS = {"num_heads": TINY.num_attention_heads, "mlp_ratio": TINY.mlp_ratio, "patch_size": TINY.patch_size}


def transformers_modules(model: Any) -> dict[str, nn.Module]:
    """For each path of a transformers model, or one of this package, the module of the same sizes."""
    config = model.config
    necks, ratio = config.neck_hidden_sizes, config.expand_ratio
    modules: dict[str, nn.Module] = {
        "mobilevit.conv_stem": ConvNormAct(3, necks[0], 3, 2),
        "mobilevit.encoder.layer.0.layer.0": InvertedResidual(necks[0], necks[1], 1, ratio),
        "mobilevit.encoder.layer.1.layer.0": InvertedResidual(necks[1], necks[2], 2, ratio),
        "mobilevit.encoder.layer.1.layer.2": InvertedResidual(necks[2], necks[2], 1, ratio),
    }
    dilations = {32: (1, 1, 1), 16: (1, 1, 2), 8: (1, 2, 4)}[config.output_stride]
    for i, (layers, dilation) in enumerate(zip((2, 4, 3), dilations, strict=True)):
        modules[f"mobilevit.encoder.layer.{2 + i}"] = MobileViTBlock(
            necks[2 + i],
            config.hidden_sizes[i],
            layers,
            config.num_attention_heads,
            out_channels=necks[3 + i],
            stride=2,
            dilation=dilation,
            expand_ratio=ratio,
            mlp_ratio=config.mlp_ratio,
            patch_size=config.patch_size,
            qkv_bias=config.qkv_bias,
        )
    if hasattr(model, "segmentation_head"):
        modules["segmentation_head.aspp"] = ASPP(necks[5], config.aspp_out_channels, config.atrous_rates)
    return modules


def timm_modules(model: Any) -> dict[str, nn.Module]:
    """The same for timm's mobilevit_xxs."""
    block = {"num_heads": 4, "mlp_ratio": 2, "patch_size": 2}
    return {
        "stem": ConvNormAct(3, 16, 3, 2),
        "stages.0.0": InvertedResidual(16, 16, 1, 2),
        "stages.1.0": InvertedResidual(16, 24, 2, 2),
        "stages.2.0": InvertedResidual(24, 48, 2, 2),
        "stages.2.1": MobileViTBlock(48, 64, 2, **block),
        "stages.3.1": MobileViTBlock(64, 80, 4, **block),
        "stages.4.1": MobileViTBlock(80, 96, 3, **block),
    }


MODULES: dict[str, Callable[[Any], dict[str, nn.Module]]] = {
    "native": transformers_modules,
    "native-segmentation": transformers_modules,
    "transformers": transformers_modules,
    "transformers-segmentation": transformers_modules,
    "timm": timm_modules,
}


def swap(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


@pytest.mark.parametrize("name", MODULES)
def test_a_model_with_its_modules_swapped(name: str) -> None:
    """The fused modules work in channels_last, in which plain PyTorch is measured too."""
    model, x = zoo.SMALL[name](), zoo.images()
    exact = zoo.run(copy.deepcopy(model).double(), x.double())
    layout = torch.channels_last
    plain = zoo.run(copy.deepcopy(model).to(memory_format=layout), x.contiguous(memory_format=layout))
    swapped = MODULES[name](model)
    for path, module in swapped.items():
        swap(model, path, module.copy_weights_from(model.get_submodule(path)).eval())
    found = {region.path for region in mvf.report(model).fused}
    assert found >= set(swapped)
    assert_within_twice(zoo.run(model, x), plain, exact, measure=rms_error)
    assert max_error(zoo.run(copy.deepcopy(model).double(), x.double()), exact) <= 1e-12 * exact.abs().max()
    mvf.accelerate(model)
    assert_within_twice(zoo.run(model, x), plain, exact, measure=rms_error)
    classes = [type(model.get_submodule(path)) for path in swapped]
    mvf.restore(model)
    assert classes == [type(module) for module in swapped.values()]
    assert_within_twice(zoo.run(model, x), plain, exact, measure=rms_error)
    model.train()
    zoo.first_output(model(x)).square().mean().backward()
    assert all(p.grad is not None for module in swapped.values() for p in module.parameters())


def test_modules_by_from_module_share_parameters_in_a_model() -> None:
    for name in ("transformers", "timm"):
        model, x = zoo.SMALL[name](), zoo.images()
        expected = zoo.run(model, x)
        for path, module in MODULES[name](model).items():
            public = next(c for c in (ConvNormAct, InvertedResidual, MobileViTBlock) if isinstance(module, c))
            swap(model, path, public.from_module(model.get_submodule(path)))
        close(zoo.run(model, x), expected)


@pytest.mark.parametrize("name", ["native", "transformers", "native-segmentation", "transformers-segmentation"])
def test_state_dicts_of_transformers_load_as_they_are(name: str) -> None:
    model = zoo.SMALL[name]()
    for path, module in MODULES[name](model).items():
        source = model.get_submodule(path)
        assert list(module.state_dict()) == list(source.state_dict())
        module.load_state_dict(source.state_dict(), strict=True)


@pytest.mark.parametrize("name", ["native", "transformers", "timm"])
def test_a_head_with_the_weights_of_a_model(name: str) -> None:
    model, x = zoo.SMALL[name](), zoo.images()
    channels, expanded = (80, 320) if name == "timm" else (14, 24)
    head = ClassifierHead(channels, expanded, 5).eval().copy_weights_from(model)
    with torch.no_grad():
        if name == "timm":
            features = model.stages(model.stem(x))
        else:
            features = model.mobilevit.encoder(model.mobilevit.conv_stem(x), return_dict=False)[0]
        close(head(features), zoo.run(model, x))


def test_weights_go_from_this_package_to_timm_as_well() -> None:
    """A layer of timm has one joined projection where this package has three."""
    model, x = zoo.SMALL["timm"](), torch.randn(1, 48, 8, 8)
    block = MobileViTBlock(48, 64, 2, **HEADS).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.1)
        twin = MobileViTBlock.from_module(model.stages[2][1]).copy_weights_from(block)
        close(twin(x), block(x))
        close(model.stages[2][1](x), block(x))  # the twin shares its parameters


def another_epsilon(block: Any) -> None:
    block.conv_kxk.bn.eps = 1e-3


def another_activation(block: Any) -> None:
    block.conv_proj.bn.act = nn.ReLU()


def another_stride(block: Any) -> None:
    block.conv_fusion.conv.stride = (2, 2)


def another_width(block: Any) -> None:
    block.transformer[1].mlp.fc1 = nn.Linear(64, 100)


def no_bias(block: Any) -> None:
    block.transformer[1].attn.qkv.bias = None


def fewer_layers(block: Any) -> None:
    del block.transformer[1]


def hooked(block: Any) -> None:
    block.conv_kxk.register_forward_hook(lambda *_: None)


DIFFERENCES = [
    (another_epsilon, r"expected local\.norm\.eps to be 1e-05, got 0\.001"),
    (another_activation, r"expected conv_out\.activation to be 'silu', got 'relu'"),
    (another_stride, r"expected fusion\.conv\.stride to be \(1, 1\), got \(2, 2\)"),
    (another_width, r"expected layers\.1\.fc1\.weight of shape \(128, 64\), got \(100, 64\)"),
    (no_bias, r"expected layers\.1\.qkv with a bias, got one without"),
    (fewer_layers, r"expected 2 layers, got 1"),
    (hooked, r"MobileVitBlock: its child conv_kxk has a hook"),
]


@pytest.mark.parametrize(("change", "message"), DIFFERENCES, ids=[change.__name__ for change, _ in DIFFERENCES])
def test_weights_of_a_module_that_computes_something_else(change: Callable[[Any], None], message: str) -> None:
    source = zoo.SMALL["timm"]().stages[2][1]
    change(source)
    block = MobileViTBlock(48, 64, 2, **HEADS)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    with pytest.raises(ValueError, match=rf"^MobileViTBlock\.copy_weights_from: {message}"):
        block.copy_weights_from(source)
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_weights_of_another_kind_of_module() -> None:
    model = zoo.SMALL["transformers"]()
    with pytest.raises(
        TypeError, match=r"^InvertedResidual\.copy_weights_from: expected a module that is one, got torch"
    ):
        InvertedResidual(8, 8).copy_weights_from(nn.Linear(8, 8))
    with pytest.raises(TypeError, match=r"expected a module that is one, got transformers\..*\.MobileViTConvLayer"):
        InvertedResidual(8, 8).copy_weights_from(model.mobilevit.conv_stem)
    layer = model.mobilevit.encoder.layer[2]
    with pytest.raises(ValueError, match=r"expected a block without an inverted residual before it, got one with"):
        MobileViTBlock(10, 8, 2).copy_weights_from(layer)
    with pytest.raises(ValueError, match=r"expected a block with an inverted residual before it, got one without"):
        MobileViTBlock(24, 64, 2, out_channels=48, stride=2).copy_weights_from(zoo.SMALL["timm"]().stages[2][1])


@pytest.mark.parametrize("bias", [True, False])
def test_a_separable_convolution_of_timm(bias: bool) -> None:
    import_timm()
    from timm.layers import SeparableConv2d

    theirs = SeparableConv2d(8, 12, 3, stride=2, bias=bias)
    x = torch.randn(2, 8, 9, 7)
    ours = DepthwiseSeparableConv2d.from_convolutions(theirs.conv_dw, theirs.conv_pw, pointwise_activation="silu")
    assert ours.pointwise.weight is theirs.conv_pw.weight
    expected = nn.functional.silu(theirs(x))
    close(ours(x), expected)
    gradients = torch.autograd.grad(ours(x).square().sum(), [*theirs.parameters()])
    expected_gradients = torch.autograd.grad(expected.square().sum(), [*theirs.parameters()])
    for actual, exact in zip(gradients, expected_gradients, strict=True):
        close(actual, exact, terms=exact.abs().sum().item())


def test_separable_convolutions_that_do_not_fit() -> None:
    depthwise, made = nn.Conv2d(8, 8, 3, groups=8), DepthwiseSeparableConv2d.from_convolutions
    with pytest.raises(ValueError, match=r"expected one filter for each channel, got 8 inputs, 12 outputs, 1 groups"):
        made(nn.Conv2d(8, 12, 3), nn.Conv2d(12, 4, 1))
    with pytest.raises(ValueError, match=r"expected a dense 1x1 convolution of 8 channels, got Conv2d\(8, 4, kernel"):
        made(depthwise, nn.Conv2d(8, 4, 3))
    with pytest.raises(ValueError, match=r"expected a dense 1x1 convolution of 8 channels, got Conv2d\(6, 4, kernel"):
        made(depthwise, nn.Conv2d(6, 4, 1))
    with pytest.raises(TypeError, match=r"expected torch\.nn\.Conv2d, got Linear"):
        made(depthwise, nn.Linear(8, 4))  # type: ignore[arg-type]
