"""Noticing at each call whether anything inside a region changed since its weights were derived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import attrgetter, contains, is_, itemgetter
from typing import Any, NamedTuple

from torch import Tensor, nn

_version = attrgetter("_version")
_training = itemgetter("training")


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


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Where a module keeps its hooks on calls."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def is_hooked(module: nn.Module) -> bool:
    """Whether calling the module does more than its class says."""
    return any(hooks_of(module)) or "forward" in module.__dict__


class Watch:
    """The modules and tensors of a region as they are now.

    Kept as parallel lists that are compared by functions written in C: the comparison runs at every call of the region,
    and a MobileViT has 300 tensors.
    """

    __slots__ = (
        *("addresses", "hooks", "module_dicts", "module_names", "modules", "names", "owners", "siblings", "sizes"),
        *("submodules", "tensors", "trustworthy", "values", "versions"),
    )

    def __init__(self, children: Sequence[Child]) -> None:
        self.siblings = [child.siblings for child in children]
        self.module_names = [child.name for child in children]
        self.modules = [child.module for child in children]
        self.module_dicts = [child.module.__dict__ for child in children]
        self.submodules = [child.module._modules for child in children]
        self.sizes = [len(modules) for modules in self.submodules]
        self.hooks = [hooks for child in children for hooks in hooks_of(child.module)]
        self.owners: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.values: list[Tensor | None] = []
        self.trustworthy = True
        """False where a change could go unseen."""
        for module in self.modules:
            for owner in (module._parameters, module._buffers):
                for name, tensor in owner.items():
                    if name != "num_batches_tracked":
                        self._watch(owner, name, tensor)
        self.tensors = [tensor for tensor in self.values if tensor is not None]
        self.versions = [tensor._version for tensor in self.tensors]
        self.addresses = [tensor.data_ptr() for tensor in self.tensors]

    def _watch(self, owner: dict[str, Any], name: str, tensor: Tensor | None) -> None:
        if tensor is not None and (tensor.is_inference() or tensor.grad is not None):
            # Tensors made in inference mode have no version, and fused optimisers step without counting one.
            self.trustworthy = False
            return
        self.owners.append(owner)
        self.names.append(name)
        self.values.append(tensor)

    def is_unchanged(self) -> bool:
        """Whether all modules and tensors are still in place, with the same content, in evaluation mode, unhooked."""
        return (
            all(map(is_, map(dict.get, self.owners, self.names), self.values))
            and list(map(_version, self.tensors)) == self.versions
            and list(map(Tensor.data_ptr, self.tensors)) == self.addresses
            and all(map(is_, map(dict.get, self.siblings, self.module_names), self.modules))
            and list(map(len, self.submodules)) == self.sizes
            and not any(map(_training, self.module_dicts))
            and not any(self.hooks)
            and not any(map(contains, self.module_dicts, repeat("forward")))
        )
