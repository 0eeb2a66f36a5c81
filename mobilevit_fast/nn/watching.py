"""Noticing at each call whether anything inside a region changed since its weights were derived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class Child(NamedTuple):
    """A module inside a region: its path from the region's module, and the place that holds it."""

    path: str
    siblings: dict[str, nn.Module | None]
    name: str
    module: nn.Module


def absorbed(module: nn.Module, paths: Sequence[str]) -> Iterator[Child]:
    """The children at these paths, everything below them, and the modules on the way there."""
    seen: set[str] = set()
    for path in paths:
        parent, prefix = module, ""
        for name in path.split("."):
            child = parent._modules.get(name)
            prefix = f"{prefix}.{name}" if prefix else name
            if child is None:
                break
            if prefix not in seen:
                seen.add(prefix)
                yield Child(prefix, parent._modules, name, child)
            parent = child
        else:
            stack = [(prefix, parent)]
            while stack:
                at, owner = stack.pop()
                for name, child in owner._modules.items():
                    if child is not None:
                        yield Child(f"{at}.{name}", owner._modules, name, child)
                        stack.append((f"{at}.{name}", child))


def is_hooked(module: nn.Module) -> bool:
    """Whether calling the module does more than its class says."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


class _Watched(NamedTuple):
    owner: dict[str, Any]
    name: str
    tensor: Tensor | None
    version: int
    address: int


class Watch:
    """The modules and tensors of a region as they are now."""

    __slots__ = ("children", "sizes", "tensors", "trustworthy")

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = children
        self.sizes = [len(child.module._modules) for child in children]
        self.tensors: list[_Watched] = []
        self.trustworthy = True
        """False where a change could go unseen."""
        for child in children:
            for owner in (child.module._parameters, child.module._buffers):
                for name, tensor in owner.items():
                    if name != "num_batches_tracked":
                        self._watch(owner, name, tensor)

    def _watch(self, owner: dict[str, Any], name: str, tensor: Tensor | None) -> None:
        if tensor is None:
            self.tensors.append(_Watched(owner, name, None, 0, 0))
        elif tensor.is_inference() or tensor.grad is not None:
            # Tensors made in inference mode have no version, and fused optimisers step without counting one.
            self.trustworthy = False
        else:
            self.tensors.append(_Watched(owner, name, tensor, tensor._version, tensor.data_ptr()))

    def is_unchanged(self) -> bool:
        """Whether all modules and tensors are still in place, with the same content, in evaluation mode, unhooked."""
        for (_, siblings, name, module), size in zip(self.children, self.sizes, strict=True):
            if siblings.get(name) is not module or module.training or is_hooked(module) or len(module._modules) != size:
                return False
        for owner, name, tensor, version, address in self.tensors:
            if owner.get(name) is not tensor:
                return False
            if tensor is not None and (tensor._version != version or tensor.data_ptr() != address):
                return False
        return True
