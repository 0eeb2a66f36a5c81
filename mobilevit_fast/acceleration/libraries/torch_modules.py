"""Reading torch's own modules: activations, and the classes that may stand inside a fused region."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mobilevit_fast.acceleration.parts import ConvParts, Unsupported

ACTIVATION_NAMES: dict[type[nn.Module], str] = {
    nn.Identity: "none",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Mish: "mish",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
}
"""Modules without parameters of their own, and the operators' names for them."""

TORCH_CLASSES: frozenset[type[nn.Module]] = frozenset(
    {
        *ACTIVATION_NAMES,
        nn.AdaptiveAvgPool2d,
        nn.BatchNorm2d,
        nn.Conv2d,
        nn.Dropout,
        nn.ELU,
        nn.Flatten,
        nn.GELU,
        nn.LayerNorm,
        nn.LeakyReLU,
        nn.Linear,
        nn.ModuleList,
        nn.Sequential,
    }
)
"""Classes of torch whose modules a fused region may absorb."""


def activation_name(module: nn.Module | None, more: Mapping[type[nn.Module], str]) -> str:
    """The operators' name of an activation module; ``more`` adds the classes of a library.

    Raises:
        Unsupported: no operator has this activation.
    """
    if module is None:
        return "none"
    kind = type(module)
    if isinstance(module, nn.GELU) and kind is nn.GELU:
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    if isinstance(module, nn.LeakyReLU) and kind is nn.LeakyReLU and module.negative_slope == 0.01:
        return "leaky_relu"
    if isinstance(module, nn.ELU) and kind is nn.ELU and module.alpha == 1.0:
        return "elu"
    name = more.get(kind) or ACTIVATION_NAMES.get(kind)
    if name is None:
        raise Unsupported(f"its activation {module!r} is not one the operators have")
    return name


def conv_parts(
    conv: nn.Module, norm: nn.Module | None, activation: nn.Module | None, more: Mapping[type[nn.Module], str]
) -> ConvParts:
    """Convolution, normalisation and activation, after checking that the first two are what they seem to be."""
    if not isinstance(conv, nn.Conv2d):
        raise Unsupported(f"expected a Conv2d, found a {type(conv).__name__}")
    if norm is not None and not isinstance(norm, nn.BatchNorm2d):
        raise Unsupported(f"expected a BatchNorm2d after the convolution, found a {type(norm).__name__}")
    return ConvParts(conv, norm, activation_name(activation, more))
