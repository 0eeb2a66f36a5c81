"""Activations by name against transformers'."""

import pytest
import torch
from torch import nn

from mobilevit_fast.config.activations import ACTIVATIONS, make_activation
from testing.peers import import_transformers

# Activations of other kinds of models: attention weights, routers, and one with trained parameters of its own dtype.
LEFT_OUT = {"laplace", "sqrtsoftplus", "xielu"}


@pytest.fixture(scope="module")
def theirs() -> dict[str, nn.Module]:
    import_transformers()
    from transformers.activations import ACT2FN

    return ACT2FN


def test_names(theirs: dict[str, nn.Module]) -> None:
    # Other versions of transformers have fewer names.
    assert set(theirs) - LEFT_OUT <= set(ACTIVATIONS)
    assert {"silu", "swish", "relu", "relu6", "gelu", "hardswish"} <= set(theirs)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients(name: str, theirs: dict[str, nn.Module]) -> None:
    if name not in theirs:
        pytest.skip(f"this transformers has no activation {name}")
    x = torch.linspace(-12, 12, 1001, dtype=torch.float64, requires_grad=True)
    mine, other = make_activation(name).double(), theirs[name].double()
    # 2e-9: gelu_fast writes the square root of 2 / pi with ten digits.
    torch.testing.assert_close(mine(x), other(x), rtol=2e-9, atol=2e-9)
    (gradient,) = torch.autograd.grad(mine(x).sum(), x)
    (their_gradient,) = torch.autograd.grad(other(x).sum(), x)
    torch.testing.assert_close(gradient, their_gradient, rtol=2e-9, atol=2e-9)


@pytest.mark.parametrize(("name", "cls"), [("silu", nn.SiLU), ("swish", nn.SiLU), ("relu", nn.ReLU)])
def test_torch_classes(name: str, cls: type[nn.Module]) -> None:
    assert type(make_activation(name)) is cls


def test_each_call_makes_a_new_module() -> None:
    assert make_activation("prelu") is not make_activation("prelu")


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"activation: expected one of gelu, .*silu.*, got 'sillu'"):
        make_activation("sillu")
