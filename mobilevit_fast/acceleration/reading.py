"""Checks of the modules of a region that its rule leaves open: what they hold, and whether that fits together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from mobilevit_fast.acceleration.parts import Unsupported
from mobilevit_fast.acceleration.watch import Child

Kind = TypeVar("Kind", bound=nn.Module)


def require(kind: type[Kind], module: nn.Module | None, name: str) -> Kind:
    """``module`` where it is of this kind; ``name`` is what it is of its region."""
    if not isinstance(module, kind):
        raise Unsupported(f"its {name} is a {type(module).__name__}, not a {kind.__name__}")
    return module


def linear_classifier(module: nn.Module, without: str) -> nn.Linear:
    """A linear classifier; ``without`` is the argument of models that have none."""
    if isinstance(module, nn.Identity):
        raise Unsupported(f"it has no linear classifier ({without})")
    return require(nn.Linear, module, "classifier")


def check_heads(features: int, heads: int, size: tuple[str, int], total: tuple[str, int]) -> None:
    """Heads of attention that share out all features of a query.

    Args:
        features: of a query.
        heads: their number.
        size: name and value of the setting that says how many features a head has.
        total: name and value of the one that says how many all have.
    """
    if heads < 1 or features % heads:
        raise Unsupported(f"its {features} features are not those of {heads} heads")
    for (name, found), expected in ((total, features), (size, features // heads)):
        if found != expected:
            raise Unsupported(f"its {name} is {found}, not {expected}")


def _named(children: Sequence[Child]) -> list[tuple[str, nn.Module, Tensor]]:
    return [
        (f"{child.path}.{name}", child.module, tensor)
        for child in children
        for name, tensor in (*child.module._parameters.items(), *child.module._buffers.items())
        if tensor is not None and tensor.is_floating_point()
    ]


def check_tensors(children: Sequence[Child]) -> None:
    """One device for all tensors of a region, and one type, of convolutions and linear layers, that there is a sum of.

    Raises:
        Unsupported: the two that differ, by name.
    """
    named = _named(children)
    for name, _, tensor in named:
        first, _, other = named[0]
        if tensor.device != other.device:
            places = [f"on {t.device}{', without values' if t.is_meta else ''}" for t in (other, tensor)]
            raise Unsupported(f"its {first} is {places[0]}, and its {name} {places[1]}")
        if tensor.layout != torch.strided:
            raise Unsupported(f"its {name} is of layout {tensor.layout}, not dense")
        if tensor.dtype.itemsize < 2:
            raise Unsupported(f"its {name} is of type {tensor.dtype}, in which PyTorch does not compute")
    weights = [(name, tensor) for name, module, tensor in named if isinstance(module, nn.Conv2d | nn.Linear)]
    for name, tensor in weights:
        first, other = weights[0]
        if tensor.dtype != other.dtype:
            raise Unsupported(f"its {first} is of type {other.dtype}, and its {name} of {tensor.dtype}")
    for name, tensor in [(name, tensor) for name, module, tensor in named if isinstance(module, nn.LayerNorm)]:
        first, other = weights[0] if weights else (name, tensor)
        is_pair = tensor.dtype == torch.float32 and other.dtype.itemsize == 2  # the one that PyTorch has
        if tensor.dtype != other.dtype and not is_pair:
            raise Unsupported(f"its {first} is of type {other.dtype}, and its {name} of {tensor.dtype}")
