"""Weights from one library's module into another's, by what they are for rather than by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_SETTINGS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("stride", "padding", "dilation", "groups", "padding_mode"),
    nn.BatchNorm2d: ("eps", "momentum"),
    nn.LayerNorm: ("eps",),
    nn.Linear: (),
}
"""Attributes besides its tensors that a module's result, or what it makes of itself in training, depends on."""


class _Copy(NamedTuple):
    target: Tensor
    source: Tensor


@torch.no_grad()
def copy_weights(parts: Iterable[tuple[str, Any, Any]]) -> None:
    """Copy all tensors of the modules in parts of regions into those of other parts.

    Args:
        parts: what to call them in an error, the parts to copy into, and those to copy from.

    Raises:
        ValueError: they differ in a size or a setting, or have no values; nothing is copied.
    """
    for copy in [copy for path, target, source in parts for copy in _pairs(path, target, source)]:
        copy.target.copy_(copy.source)


def _pairs(path: str, target: Any, source: Any) -> Iterator[_Copy]:
    """The tensors of two parts side by side, after checking that everything else is the same."""
    if (target is None) != (source is None):
        expected, got = ("none", "one") if target is None else ("one", "none")
        raise ValueError(f"expected {expected} as {path}, got {got}")
    if isinstance(target, nn.Module):
        yield from _of_modules(path, [target], [source])
    elif isinstance(target, tuple) and isinstance(target[0], nn.Linear):
        yield from _of_modules(path, list(target), list(source))
    elif isinstance(target, tuple) and isinstance(target[0], tuple) and not hasattr(target, "_fields"):
        if len(target) != len(source):
            raise ValueError(f"expected {len(target)} {path}, got {len(source)}")
        for i, (one, other) in enumerate(zip(target, source, strict=True)):
            yield from _pairs(f"{path}.{i}", one, other)
    elif hasattr(target, "_fields"):
        for name, one, other in zip(target._fields, target, source, strict=True):
            yield from _pairs(f"{path}.{name}" if path else name, one, other)
    elif target != source:
        raise ValueError(f"expected {path} to be {target!r}, got {source!r}")


def _of_modules(path: str, targets: list[Any], sources: list[Any]) -> Iterator[_Copy]:
    """Those of modules of one kind; several linear layers on one side may be joined in one on the other."""
    kind = next(kind for kind in _SETTINGS if isinstance(targets[0], kind))
    for name in _SETTINGS[kind]:
        one, other = getattr(targets[0], name), getattr(sources[0], name)
        if one != other:
            raise ValueError(f"expected {path}.{name} to be {one!r}, got {other!r}")
    count = max(len(targets), len(sources))
    for name in (*targets[0]._parameters, *targets[0]._buffers):
        ones, others = (_split([getattr(module, name) for module in side], count) for side in (targets, sources))
        for one, other in zip(ones, others, strict=True):
            if (one is None) != (other is None):
                expected, got = ("without", "with") if one is None else ("with", "without")
                raise ValueError(f"expected {path} {expected} a {name}, got one {got}")
            if one is None or other is None:
                continue
            if one.is_meta or other.is_meta:
                raise ValueError(f"expected {path}.{name} with values on both sides, got one on the device meta")
            if one.shape != other.shape:
                raise ValueError(f"expected {path}.{name} of shape {tuple(one.shape)}, got {tuple(other.shape)}")
            yield _Copy(one, other)


def _split(tensors: list[Tensor | None], count: int) -> list[Tensor | None]:
    """As many tensors as there are on the other side: one that joins them is cut into views."""
    if len(tensors) == count:
        return tensors
    return [None] * count if tensors[0] is None else list(tensors[0].tensor_split(count))
