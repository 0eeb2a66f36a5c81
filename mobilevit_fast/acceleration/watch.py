"""Noticing at each call whether anything inside a region changed since its weights were derived.

Modules are compared by their classes, and by the objects that their attributes, parameters, buffers and children are;
hooks by their number. Five things tell of a tensor's content. Its version counter moves with every function of PyTorch
that says it writes. The steps of optimisers that had it are counted here, since fused ones do not say so. Its address
moves when its ``data`` is replaced; the memory of before is kept until then, so that no other tensor can come to lie at
its addresses. Its sizes, strides and type change when it is replaced by another view of that memory. And a few of its
elements, where they lie on the CPU, change with most writes that go past all of these (``tensor.data.mul_``, a NumPy
view, another library).

The code that the modules run is compared too (:mod:`mobilevit_fast.acceleration.behaviour`).

What none of this sees: a write that goes past the counters and changes none of these elements, on a GPU any write that
goes past the counters; what is inside an attribute (a list, a configuration); a dict of a module inside the region
(``_parameters``) that is replaced as a whole. ``model.eval()`` has all weights derived anew.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import suppress
from operator import attrgetter, is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

from mobilevit_fast import native
from mobilevit_fast.acceleration.behaviour import Code, has_forward_of_its_own
from mobilevit_fast.ops.checks import check_stored

_VERSION: Any = Tensor._version
_nbytes = attrgetter("nbytes")


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


def hidden_in(model: nn.Module) -> set[int]:
    """Identities of the modules that fused ones stand for."""
    rules = [(module, getattr(type(module), "rule", None)) for module in model.modules() if "_mvf" in module.__dict__]
    # A module may have its own class again, by others or by a restore in another thread.
    return {id(child.module) for module, rule in rules if rule is not None for child in absorbed(module, rule.absorbs)}


def whole(model: nn.Module) -> list[Child]:
    """Everything in a model, as children of it: its own parameters and buffers, and all modules.

    Those of its own come with a stand-in for it, so that a watch over it holds no reference to it.
    """
    stand_in = nn.Module().eval()
    stand_in._parameters, stand_in._buffers = model._parameters, model._buffers
    return [Child("", {"": stand_in}, "", stand_in), *absorbed(model, list(model._modules))]


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Where a module keeps its hooks on calls."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def is_hooked(module: nn.Module) -> bool:
    """Whether calling the module does more than its class says."""
    return any(hooks_of(module)) or has_forward_of_its_own(module)


def globally_hooked() -> bool:
    """Whether hooks on all modules want to see every module called."""
    hooks = torch.nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


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
        """Steps of these tensors together."""
        return sum(self._of.get(tensor, 0) for tensor in tensors)


@functools.cache
def _steps() -> _Steps:
    return _Steps()


_SAMPLES = 4
"""Elements of a tensor that are read at every call."""


def _numbers(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Where some of them lie, evenly spaced from the first to the last, and their bytes."""
    if tensor.numel() > 0:
        last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        for i in range(_SAMPLES if last else 1):
            yield tensor.data_ptr() + last * i // (_SAMPLES - 1) * tensor.itemsize, tensor.itemsize


def _attributes_equal(attribute: Any, objects: list[Any], values: list[Any]) -> bool:
    """As ``mobilevit_fast._C.attributes_equal``, where that is not built."""
    return list(map(attribute.__get__, objects)) == values


class _Places:
    """As ``mobilevit_fast._C.Places``, where that is not built."""

    def __init__(
        self,
        owners: list[dict[str, Any]],
        names: list[str],
        values: list[Any],
        sized: list[dict[Any, Any]],
        sizes: list[int],
        modules: list[nn.Module],
        kinds: list[type],
    ) -> None:
        self._entries = owners, names, values
        self._sized = sized, sizes
        self._typed = modules, kinds

    def are_unchanged(self) -> bool:
        owners, names, values = self._entries
        sized, sizes = self._sized
        modules, kinds = self._typed
        return (
            all(map(is_, map(dict.get, owners, names), values))
            and list(map(len, sized)) == sizes
            and all(map(is_, map(type, modules), kinds))
        )


class _Layouts:
    """As ``mobilevit_fast._C.Layouts``, where that is not built or cannot describe one of the tensors."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._found = self._find(tensors)

    def _find(self, tensors: Sequence[Tensor]) -> list[list[Any]]:
        return [list(map(question, tensors)) for question in (Tensor.data_ptr, Tensor.stride, _nbytes)]

    def are_unchanged(self, tensors: Sequence[Tensor]) -> bool:
        return self._find(tensors) == self._found


def _layouts(tensors: Sequence[Tensor]) -> Any:
    """Where tensors lie and how, to be asked whether that changed."""
    native_layouts = getattr(native.extension(), "Layouts", None)
    exchange = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if native_layouts is not None and exchange is not None and all(type(t) in (Tensor, nn.Parameter) for t in tensors):
        with suppress(BufferError, RuntimeError):  # of a type that DLPack does not know
            return native_layouts(tensors, exchange)
    return _Layouts(tensors)


_HELD = ("_modules", "_forward_hooks", "_forward_pre_hooks")
"""Dicts of a module that are noticed when they are replaced as a whole."""
_ORDERED = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Modules that call others in the order in which they hold them."""


class Watch:
    """The modules, tensors and code of a region as they are now.

    Kept as parallel lists that are compared in C: the comparison runs at every call of the region, and a MobileViT has
    300 modules and 350 tensors.
    """

    __slots__ = (
        *("code", "kinds", "layouts", "memory", "modules", "names", "ordered", "orders", "owners", "places"),
        *("samples", "sampled", "sized"),
        *("sizes", "steps", "steps_of_all", "steps_of_own", "tensors", "trustworthy", "values", "versions"),
        "versions_are",
    )

    def __init__(self, children: Sequence[Child], region: nn.Module) -> None:
        self.modules = [child.module for child in children]
        self.kinds: list[type] = list(map(type, self.modules))
        self.code = Code(dict.fromkeys(self.kinds), region)
        self.sized = [held for module in self.modules for held in _dicts_of(module)]
        self.sizes = list(map(len, self.sized))
        self.owners: list[dict[str, Any]] = [child.siblings for child in children]
        self.names = [child.name for child in children]
        self.values: list[Any] = list(self.modules)
        self.tensors: list[Tensor] = []
        self.trustworthy = True
        """False where a change could go unseen."""
        for module in self.modules:
            for owner in (vars(module), module._parameters, module._buffers):
                for name, value in owner.items():
                    if isinstance(value, Tensor):
                        self._watch(name, value)
                    elif owner is vars(module) and name.startswith("_") and name not in _HELD:
                        continue  # what nn.Module keeps for itself
                    self.owners.append(owner)
                    self.names.append(name)
                    self.values.append(value)
        self.ordered = [m._modules for m in self.modules if type(m) in _ORDERED and len(m._modules) > 1]
        self.orders = list(map(list, self.ordered))
        self.owners += [function.namespace for function in self.code.functions]
        self.names += [function.name for function in self.code.functions]
        self.values += [function.value for function in self.code.functions]
        self.versions = [tensor._version for tensor in self.tensors]
        self.layouts = _layouts(self.tensors)
        self.steps = _steps()
        self.steps_of_all, self.steps_of_own = self.steps.all, self.steps.of(self.tensors)
        self.memory = [tensor.detach() for tensor in self.tensors]
        """Holds the memory of now, so that nothing else comes to lie at its addresses."""
        extension = native.extension()
        self.versions_are: Any = getattr(extension, "attributes_equal", _attributes_equal)
        places: Any = getattr(extension, "Places", _Places)
        self.places = places(self.owners, self.names, self.values, self.sized, self.sizes, self.modules, self.kinds)
        samples: Any = getattr(extension, "Samples", None)
        plain = (t for t in self.tensors if type(t) in (Tensor, nn.Parameter) and t.device.type == "cpu")
        self.samples = None if samples is None else samples([number for t in plain for number in _numbers(t)])
        self.sampled = None if self.samples is None else self.samples.hash()

    def _watch(self, name: str, tensor: Tensor) -> None:
        is_plain = tensor.layout == torch.strided and not tensor.is_nested and not is_lazy(tensor)
        if is_plain:
            check_stored("accelerate", (name,), (tensor,))
        if not is_plain or tensor.is_inference() or (tensor.is_leaf and tensor.grad is not None):
            # Some have no address, those made in inference mode no version, and a gradient tells of a step to come.
            self.trustworthy = False
        else:
            self.tensors.append(tensor)

    def is_unchanged(self, region: nn.Module) -> bool:
        """Whether all modules are what they were, and all tensors in place with the same content."""
        return (
            self.code.is_unchanged(region)
            and self.places.are_unchanged()
            and list(map(list, self.ordered)) == self.orders
            and self.versions_are(_VERSION, self.tensors, self.versions)
            and self.layouts.are_unchanged(self.tensors)
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


def _dicts_of(module: nn.Module) -> tuple[dict[Any, Any], ...]:
    return vars(module), module._parameters, module._buffers, module._modules, *hooks_of(module)
