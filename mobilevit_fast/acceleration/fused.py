"""Modules that run a whole region as one operator: rules for what becomes one, derived weights, and when to run what.

What the fused forward needs beyond the module's parameters (scales and biases from the normalisations, weights in the
layout of a kernel) is derived from them, kept outside the state dict, and derived again whenever a parameter changed.
"""

from __future__ import annotations

import copy
import functools
import warnings
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self, TypeGuard

import torch
from torch import Tensor, nn

from mobilevit_fast.acceleration.behaviour import has_forward_of_its_own, replaced_code
from mobilevit_fast.acceleration.bound import Bound, Bounds, converted, recording
from mobilevit_fast.acceleration.class_swap import Before, Swapped, exact_class, original_class, swap_class
from mobilevit_fast.acceleration.layouts import CURRENT, Layout, is_seen_elsewhere, settled
from mobilevit_fast.acceleration.parts import Unsupported
from mobilevit_fast.acceleration.pixels import PixelNormalization
from mobilevit_fast.acceleration.programs import Used
from mobilevit_fast.acceleration.reading import check_tensors
from mobilevit_fast.acceleration.rules import Rule, find_rule
from mobilevit_fast.acceleration.watch import Child, Watch, absorbed, is_hooked
from mobilevit_fast.ops.registry import check_backend, is_autocasting


def _check_child(child: Child, known: frozenset[type[nn.Module]]) -> None:
    kind = exact_class(child.module)
    if kind not in known:
        raise Unsupported(
            f"its child {child.path} is a {kind.__module__}.{kind.__qualname__}, which may compute something else"
        )
    if is_hooked(child.module):
        raise Unsupported(f"its child {child.path} has a hook or a forward of its own, which fusing would pass by")
    replaced = replaced_code(child.module)
    if replaced:
        raise Unsupported(f"its child {child.path} runs code that fusing would pass by: {replaced}")
    plain = [name for name, value in vars(child.module).items() if isinstance(value, Tensor)]
    if plain:
        raise Unsupported(f"{child.path}.{plain[0]} is a tensor, but neither a parameter nor a buffer")
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
    if has_forward_of_its_own(module, is_region=True):
        raise Unsupported("its forward method was replaced on the instance")
    replaced = replaced_code(module, is_region=True)
    if replaced:
        raise Unsupported(f"it runs code that fusing would pass by: {replaced}")
    children = list(absorbed(module, rule.absorbs))
    for child in children:
        _check_child(child, rule.known)
    if not torch.compiler.is_compiling():
        check_tensors(children)
    try:
        return rule.read(module)
    except AttributeError as missing:  # a child was replaced by another module that is known
        raise Unsupported(f"its children are not those of a {rule.original.__name__}: {missing}") from None


class Derived(NamedTuple):
    """Kernels bound to derived weights, and what these were derived from: children, a watch over them, and their type.

    No kernels where none takes uint8 images, which need not be asked at every call.
    """

    bounds: dict[str, Bound] | None
    children: dict[str, nn.Module | None]
    watch: Watch
    parameter_dtype: torch.dtype


class State:
    """State of a fused module besides its parameters: the backend asked for, and derived weights.

    These are by type, and for uint8 images (a model's first convolution) apart from the others. ``pixels`` is the
    normalisation of uint8 images, None where the module does not take any. ``keeps_layout`` says whether results that
    leave a model have the layout that the original's would have; otherwise they are channels_last.
    """

    def __init__(self, backend: str, pixels: PixelNormalization | None = None, keeps_layout: bool = False) -> None:
        check_backend(backend)
        self.backend = backend
        self.pixels = pixels
        self.keeps_layout = keeps_layout
        self.derived: dict[tuple[torch.dtype, bool], Derived] = {}
        self._refused = False

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles derive their own weights.
        return {"backend": self.backend, "pixels": self.pixels, "keeps_layout": self.keeps_layout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def forget(self) -> None:
        """Have everything derived anew."""
        self.derived.clear()

    def bounds_for(self, rule: Rule, module: nn.Module, x: Tensor) -> dict[str, Bound] | None:
        """The bound kernels for this input, or None where the original modules must run."""
        # What is no image the original modules refuse in PyTorch's own words, or it is torch.fx's stand-in for one.
        if module.training or not isinstance(x, Tensor) or x.dim() != 4:
            return None
        if torch.is_grad_enabled() and _needs_gradient(rule, module, x):
            self.derived.clear()  # a step of an optimiser may follow that nothing tells of
            if not torch.compiler.is_dynamo_compiling():
                _warn_about_gradients()
            return None
        takes_bytes = self.pixels is not None and x.dtype == torch.uint8
        dtype = parameter_dtype(module, rule) if takes_bytes and not is_autocasting(x.device.type) else compute_dtype(x)
        compiling = torch.compiler.is_compiling()
        if (compiling or CURRENT.call is None) and is_seen_elsewhere():  # which a call of a model has asked
            return None
        if not compiling:
            derived = self.derived.get((dtype, takes_bytes))
            # Others make modules that have another one's attributes, this state too, and children of their own.
            if derived is not None and derived.children is module._modules and derived.watch.is_unchanged(module):
                if (noted := recording()) is not None:
                    noted.used.append(Used(weakref.ref(module), self, (dtype, takes_bytes), derived))
                return derived.bounds if dtype == derived.parameter_dtype or is_autocasting(x.device.type) else None
        own_dtype = parameter_dtype(module, rule)
        if dtype != own_dtype and not is_autocasting(x.device.type):
            return None  # the original modules refuse it in PyTorch's own words
        if compiling:
            # Inside a compiled or exported graph the derivation is part of the graph: its inputs are the parameters.
            return self._bind(rule, module, dtype, takes_bytes)
        self.derived.pop((dtype, takes_bytes), None)
        if self._refused and self._parts(rule, module) is None:
            return None  # as before, found without a watch
        if (noted := recording()) is not None:
            noted.derives = True
        watch = Watch(list(absorbed(module, rule.absorbs)), module)
        with torch.no_grad():
            bounds = self._bind(rule, module, dtype, takes_bytes)
        self._refused = bounds is None
        if (bounds is not None or takes_bytes) and watch.trustworthy:
            self.derived[dtype, takes_bytes] = Derived(bounds, module._modules, watch, own_dtype)
        return bounds

    def _parts(self, rule: Rule, module: nn.Module) -> Any:
        """The parts of the module as it is now; None where it changed since it was fused (report() says why)."""
        if any(child.module.training for child in absorbed(module, rule.absorbs)):
            return None
        try:
            return read_parts(module, rule)
        except Unsupported:
            return None

    def _bind(self, rule: Rule, module: nn.Module, dtype: torch.dtype, takes_bytes: bool) -> dict[str, Bound] | None:
        """The kernels for the module as it is now; None where there are none."""
        parts = self._parts(rule, module)
        if parts is None:
            return None
        try:
            if takes_bytes and self.pixels is not None:
                bounds = rule.fused.bind_bytes(parts, self.backend, dtype, self.pixels)
            else:
                bounds = rule.fused.bind(parts, self.backend, dtype)
        except Unsupported:
            return None
        if bounds is None or torch.compiler.is_compiling():
            return bounds
        return Bounds(bounds, dtype, rule.fused.layout(parts) if self.keeps_layout else None)


@functools.cache
def _warn_about_gradients() -> None:
    warnings.warn(
        "mobilevit_fast: an accelerated model was called in evaluation mode with gradients enabled, so its original "
        "modules ran; call it under torch.no_grad() or torch.inference_mode() to use the fused kernels",
        stacklevel=4,
    )


class Fused(Swapped):
    """Base of the fused modules. Comes before the original class in the method resolution order."""

    rule: ClassVar[Rule]
    """Set by :func:`swapped_class`."""
    kind: ClassVar[str]
    """Name of the region in reports and in ``accelerate(include=...)``."""

    _mvf: State

    @classmethod
    def bind(cls, parts: Any, backend: str, dtype: torch.dtype) -> dict[str, Bound]:
        """Choose the kernels for these parts and bind the derived weights in ``dtype`` to them."""
        raise NotImplementedError

    @classmethod
    def bind_bytes(
        cls, parts: Any, backend: str, dtype: torch.dtype, pixels: PixelNormalization
    ) -> dict[str, Bound] | None:
        """The same for uint8 images; None where no kernel takes them, which then are normalised beforehand."""
        return None

    @classmethod
    def layout(cls, parts: Any) -> Layout | None:
        """The layout of the original modules' results; None where these are no images."""
        return None

    calls_children: ClassVar[bool] = False
    """Whether the fused forward calls modules of the region, whose results may then require gradients."""

    @classmethod
    def run(cls, module: Any, bounds: dict[str, Bound], x: Tensor) -> Tensor:
        """The fused forward of ``module``: the kernel of its kind."""
        return bounds[cls.kind](x)

    @property
    def takes_bytes(self) -> bool:
        """Whether it also takes uint8 images."""
        return self._mvf.pixels is not None

    def remark(self, dtype: torch.dtype) -> str:
        """Text of a report on uint8 images computed in ``dtype``; empty where the module takes none."""
        rule, pixels = type(self).rule, self._mvf.pixels
        if pixels is None:
            return ""
        with torch.no_grad():
            bounds = type(self).bind_bytes(read_parts(self, rule), self._mvf.backend, dtype, pixels)
        if bounds is None:
            return "uint8 images are normalised before it"
        names = ", ".join(sorted({bound.backend for bound in bounds.values()}))
        return f"uint8 images: {names}, normalisation in the weights"

    @classmethod
    def from_module(cls, module: nn.Module, *, backend: str = "auto") -> Self:
        """A fused module that shares the children and parameters of ``module``, which itself stays as it is.

        Raises:
            TypeError: no rule makes this kind of fused module from ``type(module)``.
            ValueError: the module cannot be fused as it is; the message says why.
        """
        original = original_class(module)
        rule = find_rule(exact_class(module))
        if rule is None or not issubclass(rule.fused, cls):
            name = f"{type(module).__module__}.{type(module).__qualname__}"
            raise TypeError(f"{cls.__name__}.from_module: expected a module that is one, got {name}")
        try:
            rule.fused.bind(read_parts(module, rule), backend, parameter_dtype(module, rule))
        except Unsupported as reason:
            raise ValueError(f"{cls.__name__}.from_module: {type(module).__name__}: {reason}") from None
        twin = original.__new__(original)
        for name, value in module.__dict__.items():
            if name != "forward":  # the method of the class: with another one it is refused
                twin.__dict__[name] = copy.copy(value) if isinstance(value, dict) else value
        fuse(twin, rule, backend)
        return twin  # type: ignore[return-value]

    @classmethod
    def around(cls, before: Before, module: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run the fused region; the original forward in training, or where gradients are needed."""
        state: State | None = getattr(module, "_mvf", None)
        if state is not None and len(args) + len(kwargs) == 1:
            x = args[0] if args else next(iter(kwargs.values()))
            bounds = state.bounds_for(before.rule, module, x)
            pixels = state.pixels if state.pixels is not None and x.dtype == torch.uint8 else None
            if isinstance(bounds, Bounds):
                numbers = x if pixels is not None else converted(x, bounds.dtype)
                return settled(bounds.layout, x, cls.run(module, bounds, numbers))
            if bounds is not None:  # in a graph
                return cls.run(module, bounds, x if pixels is not None else compute_input(x))
            if pixels is not None:
                return cls.around(before, module, pixels.normalized(x, parameter_dtype(module, before.rule)))
        return before.forward(module, *args, **kwargs)

    def bounds_for(self, x: Tensor) -> dict[str, Bound] | None:
        """The bound kernels for this input, or None where the original modules must run."""
        return self._mvf.bounds_for(type(self).rule, self, x)


def _needs_gradient(rule: Rule, module: nn.Module, x: Tensor) -> bool:
    if x.requires_grad:
        return True
    if rule.fused.calls_children:
        return any(parameter.requires_grad for parameter in module.parameters())
    children = absorbed(module, rule.absorbs)
    return any(p is not None and p.requires_grad for c in children for p in c.module._parameters.values())


def parameter_dtype(module: nn.Module, rule: Rule) -> torch.dtype:
    """The type of the parameters of a region."""
    children = [child.module for child in absorbed(module, rule.absorbs)]
    dtype = next((p.dtype for child in children for p in child._parameters.values() if p is not None), None)
    if dtype is None:  # in a replica of nn.DataParallel they are plain tensors
        dtype = next((v.dtype for child in children for v in vars(child).values() if isinstance(v, Tensor)), None)
    return torch.float32 if dtype is None else dtype


def is_fused(module: nn.Module) -> TypeGuard[Fused]:
    """Whether a module is fused now; of one that was, others may have kept the class."""
    return isinstance(module, Fused) and "_mvf" in module.__dict__


def parameter_device(module: nn.Module, rule: Rule) -> torch.device:
    """The device of the parameters of a region."""
    children = absorbed(module, rule.absorbs)
    parameters = (p for c in children for p in c.module._parameters.values() if p is not None)
    return next((p.device for p in parameters), torch.device("cpu"))


def mode_remark(module: nn.Module, rule: Rule) -> str:
    """Text of a report on training mode, in which the original modules run; empty in evaluation mode."""
    if module.training:
        return "in training mode, so the original modules run"
    training = next((child.path for child in absorbed(module, rule.absorbs) if child.module.training), None)
    return "" if training is None else f"its child {training} is in training mode, so the original modules run"


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type to compute in: autocast's, where it is on for ``x``'s device, else ``x``'s own."""
    return torch.get_autocast_dtype(x.device.type) if is_autocasting(x.device.type) else x.dtype


def compute_input(x: Tensor) -> Tensor:
    """``x`` in the type to compute in."""
    return converted(x, compute_dtype(x))


def fuse(
    module: nn.Module,
    rule: Rule,
    backend: str,
    pixels: PixelNormalization | None = None,
    in_front: tuple[type[Swapped], ...] = (),
    state: Mapping[str, Any] | None = None,
    keeps_layout: bool = False,
) -> None:
    """Swap the class of ``module`` for its fused one; with ``pixels`` it also takes uint8 images.

    ``in_front`` are mixins that come before that, and ``state`` what these need.
    """
    swap_class(module, (*in_front, rule.fused), {**(state or {}), "_mvf": State(backend, pixels, keeps_layout)})
