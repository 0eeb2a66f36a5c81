"""Noticing at each call whether anything inside a region changed since its weights were derived.

Four things tell of a tensor's content. Its version counter moves with every function of PyTorch that says it writes.
The steps of optimisers that had it are counted here, since fused ones do not say so. Its address moves when its
``data`` is replaced; the memory of before is kept until then, so that no other tensor can come to lie there. And a few
of its numbers, where they lie on the CPU, change with most writes that go past all of these (``tensor.data.mul_``, a
NumPy view, another library). A write that goes past the counters and changes none of these numbers cannot be seen, and
on a GPU no write can that goes past the counters: ``model.eval()`` has all weights derived anew.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, MutableMapping, Sequence
from itertools import repeat
from operator import attrgetter, contains, is_, itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

from mobilevit_fast import native
from mobilevit_fast.ops.checks import check_stored

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


class _Steps:
    """How many steps optimisers took, in all and of each tensor; counting changes nothing for anybody else."""

    def __init__(self) -> None:
        self.all = 0
        self._of: MutableMapping[Tensor, int] = WeakIdKeyDictionary()
        register_optimizer_step_post_hook(self._count)

    def _count(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if torch.compiler.is_compiling():
            return
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                self._of[tensor] = self._of.get(tensor, 0) + 1
        self.all += 1

    def of(self, tensors: Sequence[Tensor]) -> int:
        """Of these together."""
        return sum(self._of.get(tensor, 0) for tensor in tensors)


@functools.cache
def _steps() -> _Steps:
    return _Steps()


_SAMPLES = 4
"""Numbers of a tensor that are read at every call."""


def _numbers(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Where some of them lie, evenly spaced from the first to the last, and their bytes."""
    if tensor.numel() > 0:
        last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        for i in range(_SAMPLES if last else 1):
            yield tensor.data_ptr() + last * i // (_SAMPLES - 1) * tensor.itemsize, tensor.itemsize


class Watch:
    """The modules and tensors of a region as they are now.

    Kept as parallel lists that are compared in C: the comparison runs at every call of the region, and a MobileViT has
    300 tensors.
    """

    __slots__ = (
        *("addresses", "hooks", "in_place", "memory", "module_dicts", "names", "owners", "samples", "sampled", "sizes"),
        *("steps", "steps_of_all", "steps_of_own", "submodules", "tensors", "trustworthy", "values", "versions"),
    )

    def __init__(self, children: Sequence[Child]) -> None:
        modules = [child.module for child in children]
        self.module_dicts = [module.__dict__ for module in modules]
        self.submodules = [module._modules for module in modules]
        self.sizes = [len(submodules) for submodules in self.submodules]
        self.hooks = [hooks for module in modules for hooks in hooks_of(module)]
        self.owners: list[dict[str, Any]] = [child.siblings for child in children]
        self.names = [child.name for child in children]
        self.values: list[Any] = list(modules)
        self.tensors: list[Tensor] = []
        self.trustworthy = True
        """False where a change could go unseen."""
        for module in modules:
            for owner in (module._parameters, module._buffers):
                for name, tensor in owner.items():
                    self._watch(owner, name, tensor)
        self.versions = [tensor._version for tensor in self.tensors]
        self.addresses = [tensor.data_ptr() for tensor in self.tensors]
        self.steps = _steps()
        self.steps_of_all, self.steps_of_own = self.steps.all, self.steps.of(self.tensors)
        self.memory = [tensor.detach() for tensor in self.tensors]
        """Holds the memory of now, so that nothing else comes to lie at its addresses."""
        extension = native.extension()
        self.in_place: Any = getattr(extension, "is_in_place", _is_in_place)
        samples: Any = getattr(extension, "Samples", None)
        plain = (t for t in self.tensors if type(t) in (Tensor, nn.Parameter) and t.device.type == "cpu")
        self.samples = None if samples is None else samples([number for t in plain for number in _numbers(t)])
        self.sampled = None if self.samples is None else self.samples.hash()

    def _watch(self, owner: dict[str, Any], name: str, tensor: Tensor | None) -> None:
        if tensor is not None:
            check_stored("accelerate", (name,), (tensor,))
            if tensor.is_inference() or tensor.grad is not None:
                # Tensors made in inference mode have no version, and a gradient tells of a step that may follow.
                self.trustworthy = False
                return
            self.tensors.append(tensor)
        self.owners.append(owner)
        self.names.append(name)
        self.values.append(tensor)

    def is_unchanged(self) -> bool:
        """Whether all modules and tensors are still in place, with the same content, in evaluation mode, unhooked."""
        places = (self.owners, self.names, self.values)
        return (
            self.in_place(*places, self.submodules, self.sizes, self.module_dicts, self.hooks)
            and list(map(_version, self.tensors)) == self.versions
            and list(map(Tensor.data_ptr, self.tensors)) == self.addresses
            and (self.steps.all == self.steps_of_all or self._not_stepped())
            and (self.samples is None or self.samples.hash() == self.sampled)
        )

    def _not_stepped(self) -> bool:
        """Whether the steps since were those of other tensors."""
        now = self.steps.all
        if self.steps.of(self.tensors) != self.steps_of_own:
            return False
        self.steps_of_all = now
        return True


def _is_in_place(
    owners: list[dict[str, Any]],
    names: list[str],
    values: list[Any],
    sized: list[dict[str, Any]],
    sizes: list[int],
    modules: list[dict[str, Any]],
    hooks: list[dict[int, Any]],
) -> bool:
    """As ``mobilevit_fast._C.is_in_place``, where that is not built."""
    return (
        all(map(is_, map(dict.get, owners, names), values))
        and list(map(len, sized)) == sizes
        and not any(map(_training, modules))
        and not any(hooks)
        and not any(map(contains, modules, repeat("forward")))
    )
