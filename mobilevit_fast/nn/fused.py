"""Modules that run a whole region as one operator: rules for what becomes one, derived weights, and when to run what.

What the fused forward needs beyond the module's parameters (scales and biases from the normalisations, weights in the
layout of a kernel) is derived from them, kept outside the state dict, and derived again whenever a parameter changed.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from mobilevit_fast.nn.exchange import Exchanged, exchanged_class, original_class
from mobilevit_fast.nn.parts import Unsupported
from mobilevit_fast.ops.registry import Op, check_backend


@dataclass(frozen=True)
class Rule:
    """How modules of one class become fused.

    Args:
        original: the class, matched exactly; subclasses may compute something else and are skipped.
        fused: what it becomes.
        read: takes a module of the class, returns its parts; raises :class:`Unsupported` with the reason otherwise.
        absorbs: paths of the children whose forward methods the fused module no longer calls.
        known: classes that these children and what is below them may have.
    """

    original: type[nn.Module]
    fused: type[Fused]
    read: Callable[[nn.Module], Any]
    absorbs: tuple[str, ...]
    known: frozenset[type[nn.Module]]


class Bound(NamedTuple):
    """A kernel with every argument but the activations; ``passed_over`` says why no earlier backend was taken."""

    overload: Any
    backend: str
    passed_over: tuple[str, ...]
    arguments: tuple[Any, ...]

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        return self.overload(*inputs, *self.arguments)


def bind(op: Op, backend: str, dtype: torch.dtype, num_inputs: int, *arguments: Any) -> Bound:
    """Choose a kernel for these arguments, which follow the first ``num_inputs`` ones of the operator."""
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    attributes = {
        name: value
        for name, value in zip(op.argument_names[num_inputs:], arguments, strict=True)
        if not isinstance(value, Tensor)
    }
    choice = op.choose(backend, device, dtype, attributes)
    return Bound(choice.overload, choice.backend, choice.passed_over, arguments)


class _Child(NamedTuple):
    path: str
    siblings: dict[str, nn.Module | None]
    name: str
    module: nn.Module


def _absorbed(module: nn.Module, paths: Sequence[str]) -> Iterator[_Child]:
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
                yield _Child(prefix, parent._modules, name, child)
            parent = child
        else:
            stack = [(prefix, parent)]
            while stack:
                at, owner = stack.pop()
                for name, child in owner._modules.items():
                    if child is not None:
                        yield _Child(f"{at}.{name}", owner._modules, name, child)
                        stack.append((f"{at}.{name}", child))


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def _check_child(child: _Child, known: frozenset[type[nn.Module]]) -> None:
    kind = original_class(child.module)
    if kind not in known:
        raise Unsupported(
            f"its child {child.path} is a {kind.__module__}.{kind.__qualname__}, which may compute something else"
        )
    if _hooked(child.module):
        raise Unsupported(f"its child {child.path} has a hook or a forward of its own, which fusing would pass by")
    for name, parameter in child.module._parameters.items():
        if parameter is None or torch.compiler.is_compiling():  # tracing puts its own tensors in their place
            continue
        if type(parameter) not in (Tensor, nn.Parameter):
            raise Unsupported(f"{child.path}.{name} is a {type(parameter).__name__}, not a plain tensor")
        if not parameter.dtype.is_floating_point:
            raise Unsupported(f"{child.path}.{name} is of type {parameter.dtype}, not a floating point type")


def read_parts(module: nn.Module, rule: Rule) -> Any:
    """The parts of a module that its rule fuses.

    Raises:
        Unsupported: why the module cannot be fused as it is now.
    """
    if "forward" in module.__dict__:
        raise Unsupported("its forward method was replaced on the instance")
    for child in _absorbed(module, rule.absorbs):
        _check_child(child, rule.known)
    return rule.read(module)


class _Watched(NamedTuple):
    owner: dict[str, Any]
    name: str
    tensor: Tensor | None
    version: int
    address: int


def _version(tensor: Tensor) -> int:
    # Tensors made in inference mode keep no version; for these, only replacement is seen.
    return -1 if tensor.is_inference() else tensor._version


class _Derived:
    """Kernels bound to derived weights, and what they were derived from."""

    __slots__ = ("bounds", "children", "sizes", "tensors")

    def __init__(self, module: nn.Module, rule: Rule, bounds: dict[str, Bound]) -> None:
        self.bounds = bounds
        self.children = list(_absorbed(module, rule.absorbs))
        self.sizes = [len(child.module._modules) for child in self.children]
        self.tensors: list[_Watched] = []
        for child in self.children:
            for owner in (child.module._parameters, child.module._buffers):
                for name, tensor in owner.items():
                    if name == "num_batches_tracked":
                        continue
                    version, address = (0, 0) if tensor is None else (_version(tensor), tensor.data_ptr())
                    self.tensors.append(_Watched(owner, name, tensor, version, address))

    def is_fresh(self) -> bool:
        """Whether every child and every tensor is still the one the weights were derived from, unchanged."""
        for (_, siblings, name, module), size in zip(self.children, self.sizes, strict=True):
            if siblings.get(name) is not module or module.training or _hooked(module) or len(module._modules) != size:
                return False
        for owner, name, tensor, version, address in self.tensors:
            if owner.get(name) is not tensor:
                return False
            if tensor is not None and (_version(tensor) != version or tensor.data_ptr() != address):
                return False
        return True


class State:
    """What a fused module carries besides its parameters: the backend asked for, and derived weights by type."""

    def __init__(self, backend: str) -> None:
        check_backend(backend)
        self.backend = backend
        self.derived: dict[torch.dtype, _Derived] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend}  # copies and pickles derive their own weights

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["backend"])  # type: ignore[misc]


@functools.cache
def _warn_about_gradients() -> None:
    warnings.warn(
        "mobilevit_fast: an accelerated model was called in evaluation mode with gradients enabled, so its original "
        "modules ran; call it under torch.no_grad() or torch.inference_mode() to use the fused kernels",
        stacklevel=4,
    )


class Fused(Exchanged):
    """Base of the fused modules. Comes before the original class in the method resolution order."""

    rule: ClassVar[Rule]
    """Set by :func:`exchanged_class`."""
    kind: ClassVar[str]
    """Name of the region in reports and in ``accelerate(include=...)``."""

    _mvf: State

    @classmethod
    def bind(cls, parts: Any, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        """Choose the kernels for these parts and bind the derived weights in ``dtype`` to them."""
        raise NotImplementedError

    def run(self, bounds: dict[str, Bound], x: Tensor) -> Tensor:
        """The fused forward."""
        raise NotImplementedError

    @classmethod
    def from_module(cls, module: nn.Module, *, backend: str = "auto") -> Self:
        """A fused module that shares the children and parameters of ``module``, which itself stays as it is.

        Raises:
            TypeError: no rule makes this kind of fused module from ``type(module)``.
            ValueError: the module cannot be fused as it is; the message says why.
        """
        from mobilevit_fast.integrations import find_rule

        rule = find_rule(type(module))
        if rule is None or not issubclass(rule.fused, cls):
            name = f"{type(module).__module__}.{type(module).__qualname__}"
            raise TypeError(f"{cls.__name__}.from_module: expected a module that is one, got {name}")
        try:
            rule.fused.bind(read_parts(module, rule), backend, parameter_dtype(module))
        except Unsupported as reason:
            raise ValueError(f"{cls.__name__}.from_module: {type(module).__name__}: {reason}") from None
        twin = type(module).__new__(type(module))
        for name, value in module.__dict__.items():
            twin.__dict__[name] = copy.copy(value) if isinstance(value, dict) else value
        fuse(twin, rule, backend)
        return twin  # type: ignore[return-value]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the fused region; the original forward in training, or where gradients are needed."""
        if len(args) + len(kwargs) == 1:
            x = args[0] if args else next(iter(kwargs.values()))
            bounds = self.bounds_for(x)
            if bounds is not None:
                return self.run(bounds, compute_input(x))
        return super().forward(*args, **kwargs)

    def bounds_for(self, x: Tensor) -> dict[str, Bound] | None:
        """The bound kernels for this input, or None where the original modules must run."""
        if self.training:
            return None
        rule, state = type(self).rule, self._mvf
        if torch.is_grad_enabled() and self._needs_gradient(x):
            if not torch.compiler.is_compiling():
                _warn_about_gradients()
            return None
        if not _autocasting(x) and x.dtype != self._parameter_dtype():
            return None  # the original modules refuse it in PyTorch's own words
        dtype = compute_dtype(x)
        if torch.compiler.is_compiling():
            # Inside a compiled or exported graph the derivation is part of the graph: its inputs are the parameters.
            try:
                return type(self).bind(read_parts(self, rule), state.backend, dtype)
            except Unsupported:
                return None
        derived = state.derived.get(dtype)
        if derived is None or not derived.is_fresh():
            derived = self._derive(dtype)
        return None if derived is None else derived.bounds

    def _derive(self, dtype: torch.dtype) -> _Derived | None:
        rule, state = type(self).rule, self._mvf
        if any(child.module.training for child in _absorbed(self, rule.absorbs)):
            return None
        try:
            parts = read_parts(self, rule)
            with torch.no_grad():
                bounds = type(self).bind(parts, state.backend, dtype)
        except Unsupported:
            return None  # it changed since it was fused; report() says why
        derived = _Derived(self, rule, bounds)
        state.derived[dtype] = derived
        return derived

    def _parameter_dtype(self) -> torch.dtype:
        children = _absorbed(self, type(self).rule.absorbs)
        return next(p.dtype for c in children for p in c.module._parameters.values() if p is not None)

    def _needs_gradient(self, x: Tensor) -> bool:
        if x.requires_grad:
            return True
        children = _absorbed(self, type(self).rule.absorbs)
        return any(p is not None and p.requires_grad for c in children for p in c.module._parameters.values())

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._mvf.derived.clear()
        return super()._apply(*args, **kwargs)


def parameter_dtype(module: nn.Module) -> torch.dtype:
    """The floating point type of the parameters of a module."""
    for parameter in module.parameters():
        if parameter.dtype.is_floating_point:
            return parameter.dtype
    return torch.get_default_dtype()


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type to compute in: autocast's, where it is on for ``x``'s device, else ``x``'s own."""
    return torch.get_autocast_dtype(x.device.type) if _autocasting(x) else x.dtype


def _autocasting(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def compute_input(x: Tensor) -> Tensor:
    """``x`` in the type to compute in."""
    return x.to(compute_dtype(x))


def fuse(module: nn.Module, rule: Rule, backend: str) -> None:
    """Exchange the class of ``module`` for its fused one."""
    state = State(backend)
    module.__class__ = exchanged_class((rule.fused,), rule.original)
    module.__dict__["_mvf"] = state
