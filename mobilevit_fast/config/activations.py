"""Activation functions by the names that Hugging Face configurations use in `hidden_act`."""

from collections.abc import Callable

import torch
from torch import nn


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the cheap approximation of GELU (arXiv 1606.08415, section 2). Any shape, elementwise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class ClippedGELU(nn.Module):
    """GELU with its value limited to [-limit, limit] (arXiv 2004.09602). Any shape, elementwise."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(x).clamp(-self.limit, self.limit)

    def extra_repr(self) -> str:
        return f"limit={self.limit}"


class ReLUSquared(nn.Module):
    """max(x, 0)^2 (arXiv 2109.08668). Any shape, elementwise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.square(nn.functional.relu(x))


def _tanh_gelu() -> nn.Module:
    return nn.GELU(approximate="tanh")


# Names that stand for one function written in different ways (gelu_new, gelu_fast, ...) share one module here.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_10": lambda: ClippedGELU(10.0),
    "gelu_accurate": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_python": nn.GELU,
    "gelu_python_tanh": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "hardswish": nn.Hardswish,
    "leaky_relu": nn.LeakyReLU,
    "linear": nn.Identity,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
    "relu2": ReLUSquared,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}


# Further ones of mobilevit_fast.ops, which no configuration can name.
_OPERATORS_OWN: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "gelu_tanh": _tanh_gelu,
    "hardsigmoid": nn.Hardsigmoid,
    "elu": nn.ELU,
}


def make_activation(name: str) -> nn.Module:
    """A new module for the activation called `name`, in a configuration or by the operators.

    Raises:
        ValueError: `name` is not in `ACTIVATIONS`; the message lists the names that are.
    """
    if name in _OPERATORS_OWN:
        return _OPERATORS_OWN[name]()
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()
