"""The modules as users make them: from a module, or by constructor."""

import copy

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.nn import ConvNormAct, DepthwiseConv2d, DepthwiseSeparableConv2d, InvertedResidual, MobileViTBlock
from tests.integrations import zoo


def test_from_module_shares_parameters_and_leaves_the_original_alone() -> None:
    model = zoo.SMALL["native"]()
    original = model.mobilevit.encoder.layer[0].layer[0]
    block = InvertedResidual.from_module(original)
    assert isinstance(block, InvertedResidual)
    assert isinstance(block, type(original))
    assert type(original).__name__ == "MobileViTInvertedResidual"
    assert not isinstance(original, InvertedResidual)
    assert [id(p) for p in block.parameters()] == [id(p) for p in original.parameters()]
    assert list(block.state_dict()) == list(original.state_dict())
    x = torch.randn(2, 4, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(block(x), original(x))
    original.register_forward_hook(lambda *_: pytest.fail("a hook of the original fired"))
    with torch.no_grad():
        block(x)


def test_from_module_of_every_kind() -> None:
    model = zoo.timm_small()
    with torch.no_grad():
        stem = ConvNormAct.from_module(model.stem)
        torch.testing.assert_close(stem(zoo.images()), model.stem(zoo.images()))
        x = torch.randn(1, 48, 10, 10)
        block = MobileViTBlock.from_module(model.stages[2][1], backend="reference")
        torch.testing.assert_close(block(x), model.stages[2][1](x))


def test_from_module_refuses() -> None:
    model = zoo.SMALL["native"]()
    with pytest.raises(TypeError, match=r"InvertedResidual\.from_module: expected a module that is one, got torch\."):
        InvertedResidual.from_module(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"MobileViTBlock\.from_module: expected a module that is one, got .*ConvLayer"):
        MobileViTBlock.from_module(model.mobilevit.conv_stem)
    block = model.mobilevit.encoder.layer[2]
    block.fusion.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="MobileViTLayer: its child fusion has a hook"):
        MobileViTBlock.from_module(block)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_conv2d_is_a_conv2d(stride: int) -> None:
    plain = nn.Conv2d(16, 16, 3, stride, 1, groups=16)
    module = DepthwiseConv2d(16, 3, stride, 1, activation="silu")
    module.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(2, 16, 9, 11, requires_grad=True)
    y = module(x)
    expected = nn.functional.silu(plain(x))
    torch.testing.assert_close(y, expected)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(grad, expected_grad)
    twin = DepthwiseConv2d.from_module(plain, activation="silu")
    assert twin.weight is plain.weight
    torch.testing.assert_close(twin(x), expected)
    assert "activation=silu" in repr(module)


def test_depthwise_conv2d_refuses() -> None:
    with pytest.raises(ValueError, match="expected one filter for each channel, got 4 inputs, 8 outputs, 4 groups"):
        DepthwiseConv2d.from_module(nn.Conv2d(4, 8, 3, groups=4))
    with pytest.raises(ValueError, match="expected padding with zeros by a number, got padding 'same'"):
        DepthwiseConv2d.from_module(nn.Conv2d(4, 4, 3, padding="same", groups=4))
    with pytest.raises(TypeError, match=r"expected torch\.nn\.Conv2d, got Linear"):
        DepthwiseConv2d.from_module(nn.Linear(4, 4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a backend among"):
        DepthwiseConv2d(4, 3, backend="fast")


def test_depthwise_separable_conv2d() -> None:
    module = DepthwiseSeparableConv2d(
        8, 12, 3, stride=2, padding=1, depthwise_activation="relu", pointwise_activation="silu"
    )
    x = torch.randn(2, 8, 11, 10)
    with torch.no_grad():
        expected = nn.functional.silu(module.pointwise(nn.functional.relu(module.depthwise(x))))
        torch.testing.assert_close(module(x), expected)
    module(x).sum().backward()
    assert module.depthwise.weight.grad is not None
    assert sorted(module.state_dict()) == ["depthwise.bias", "depthwise.weight", "pointwise.bias", "pointwise.weight"]
    twin = copy.deepcopy(module)
    assert torch.equal(twin(x), module(x))


def test_unusual_normalisation_is_folded_or_refused() -> None:
    stem = zoo.SMALL["native"]().mobilevit.conv_stem
    x = zoo.images()
    stem.normalization = nn.BatchNorm2d(4, affine=False).eval()
    stem.normalization.running_mean.uniform_(-1, 1)
    with torch.no_grad():
        torch.testing.assert_close(ConvNormAct.from_module(stem)(x), stem(x))
    stem.normalization = nn.BatchNorm2d(4, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="its batch normalisation keeps no running statistics"):
        ConvNormAct.from_module(stem)
    stem.convolution.padding_mode = "reflect"
    stem.normalization = nn.BatchNorm2d(4).eval()
    with pytest.raises(ValueError, match="in mode 'reflect', not with zeros"):
        ConvNormAct.from_module(stem)


def test_public_names() -> None:
    for name in mvf.__all__:
        assert getattr(mvf, name) is not None


def test_convolutions_with_hooks_are_not_shared() -> None:
    depthwise, pointwise = nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1)
    handle = depthwise.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="expected a convolution without hooks"):
        mvf.nn.DepthwiseConv2d.from_module(depthwise)
    with pytest.raises(ValueError, match="expected a convolution without hooks"):
        mvf.nn.DepthwiseSeparableConv2d.from_convolutions(depthwise, pointwise)
    handle.remove()
    pointwise.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="expected a convolution without hooks"):
        mvf.nn.DepthwiseSeparableConv2d.from_convolutions(depthwise, pointwise)


def test_weights_without_values_and_other_momenta_are_not_copied() -> None:
    module = ConvNormAct(8, 8, 1)
    with pytest.raises(ValueError, match="with values on both sides, got one on the device meta"):
        module.copy_weights_from(ConvNormAct(8, 8, 1, device="meta"))
    other = ConvNormAct(8, 8, 1)
    next(m for m in other.modules() if isinstance(m, nn.BatchNorm2d)).momentum = 0.01
    with pytest.raises(ValueError, match=r"momentum to be 0\.1, got 0\.01"):
        module.copy_weights_from(other)
