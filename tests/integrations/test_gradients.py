"""Training, gradients and partly trained models after acceleration: the originals run and their results are exact."""

import copy
import warnings

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from tests.integrations import zoo


@pytest.fixture(params=list(zoo.SMALL))
def model(request: pytest.FixtureRequest) -> nn.Module:
    return zoo.SMALL[request.param]()


@pytest.fixture(params=["native", "transformers", "timm"])
def classifier(request: pytest.FixtureRequest) -> nn.Module:
    return zoo.SMALL[request.param]()


@pytest.mark.parametrize("frozen", ["head", "block"])
def test_gradients_reach_what_lies_before_a_frozen_region(frozen: str) -> None:
    model = zoo.SMALL["native"]()
    block = model.mobilevit.encoder.layer[2]
    for parameter in model.parameters():
        parameter.requires_grad_(frozen == "head")
    for module in (model.classifier, model.mobilevit.conv_1x1_exp):
        module.requires_grad_(False)
    if frozen == "block":
        block.downsampling_layer.requires_grad_(True)
    twin, x = copy.deepcopy(model), zoo.images()
    mvf.accelerate(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradients enabled")
        zoo.first_output(model(x)).square().sum().backward()
    zoo.first_output(twin(x)).square().sum().backward()
    gradients = [(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True)]
    assert any(expected is not None for _, expected in gradients)
    for actual, expected in gradients:
        assert (actual is None) == (expected is None)
        if actual is not None and expected is not None:
            assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_forward_mode_differentiation_uses_the_originals() -> None:
    model = zoo.SMALL["native"]().requires_grad_(False)
    x, tangent = zoo.images(), torch.ones(2, 3, 64, 64)

    def logits(images: torch.Tensor) -> torch.Tensor:
        return zoo.first_output(model(images))

    _, expected = torch.func.jvp(logits, (x,), (tangent,))
    mvf.accelerate(model)
    _, actual = torch.func.jvp(logits, (x,), (tangent,))
    assert expected.abs().max() > 0
    assert torch.equal(actual, expected)


def test_training_uses_the_originals_and_their_gradients(model: nn.Module) -> None:
    twin, x = copy.deepcopy(model), zoo.images()
    mvf.accelerate(model)
    for m in (model, twin):
        m.train()
        torch.manual_seed(0)
        zoo.first_output(m(x)).square().sum().backward()
    for (name, actual), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(actual.grad, expected.grad), name
    for actual, expected in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(actual, expected)


def test_gradients_in_evaluation_mode_come_from_the_originals_with_a_warning(classifier: nn.Module) -> None:
    from mobilevit_fast.acceleration import fused

    twin, x = copy.deepcopy(classifier), zoo.images()
    mvf.accelerate(classifier)
    fused._warn_about_gradients.cache_clear()
    with pytest.warns(UserWarning, match="gradients enabled"):
        zoo.first_output(classifier(x)).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once in a process is enough
        classifier(x)
    zoo.first_output(twin(x)).sum().backward()
    for actual, expected in zip(classifier.parameters(), twin.parameters(), strict=True):
        assert torch.equal(actual.grad, expected.grad)


def test_frozen_weights_need_no_gradient_guard(classifier: nn.Module) -> None:
    classifier.requires_grad_(False)
    mvf.accelerate(classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fused = zoo.first_output(classifier(zoo.images()))
    assert torch.equal(fused, zoo.run(classifier, zoo.images()))
    x = zoo.images().requires_grad_()
    zoo.first_output(classifier(x)).sum().backward()
    assert x.grad is not None


def test_one_child_in_training_mode_is_respected() -> None:
    model = zoo.SMALL["native"]()
    model.dropout.p = 0.5
    mvf.accelerate(model)
    x = zoo.images(8)
    assert torch.equal(zoo.run(model, x), zoo.run(model, x))
    model.dropout.train()  # Monte Carlo dropout
    assert not torch.equal(zoo.run(model, x), zoo.run(model, x))
    model.dropout.eval()
    assert torch.equal(zoo.run(model, x), zoo.run(model, x))
