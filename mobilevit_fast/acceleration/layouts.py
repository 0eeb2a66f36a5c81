"""Memory layout of what leaves an accelerated model: that of the original's results.

Fused operators write channels_last, and read any layout. PyTorch's modules give what their input and weights ask for.
Code around a model may depend on it (``features.view(...)``), so results that leave a model get the layout that they
would have without acceleration. Between its regions they stay as they are.

A call of a model is known to the regions inside by a variable of its thread. A region that is called without one, from
other code than a library's model, hands its result to code that nobody knows.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format

from mobilevit_fast.acceleration.class_swap import Before, Swapped, original_class
from mobilevit_fast.acceleration.parts import ConvParts
from mobilevit_fast.acceleration.programs import Key, Programs, Recording, Refused, key_of
from mobilevit_fast.acceleration.watch import globally_hooked, hidden_in
from mobilevit_fast.ops.registry import is_read_elsewhere, is_transformed


class Layout(NamedTuple):
    """When the original modules of a region give channels_last results; otherwise these are contiguous.

    Attributes:
        always: whatever the input is.
        keeps: where the input is.
        normalizes: unless a result is both contiguous and channels_last, since a normalisation is behind it.
    """

    always: bool
    keeps: bool
    normalizes: bool

    def after(self, channels_last: bool, y: Tensor) -> bool:
        """Whether the result, of the shape of ``y``, is channels_last for an input that is or is not."""
        _, c, h, w = y.shape
        return (self.always or (self.keeps and channels_last)) and not (self.normalizes and 1 in (c, h * w))


def is_channels_last(x: Tensor) -> bool:
    """Whether convolutions take ``x`` for channels_last, images or weights."""
    return suggest_memory_format(x) == torch.channels_last


def layout_of(*convolutions: ConvParts) -> Layout:
    """Layout of convolutions one after another, or side by side with a concatenation behind them."""
    always = any(is_channels_last(parts.conv.weight) for parts in convolutions)
    return Layout(always, True, convolutions[-1].norm is not None)


def laid_out(y: Tensor, channels_last: bool) -> Tensor:
    """``y`` with the strides of a fresh tensor, to the letter."""
    _, c, h, w = y.shape
    strides = (c * h * w, 1, w * c, c) if channels_last else (c * h * w, h * w, w, 1)
    if y.stride() == strides:
        return y
    return y.clone(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class _Result(NamedTuple):
    """The result of a region: which, whether the original's is channels_last, and its pixels."""

    reference: weakref.ref[Tensor]
    channels_last: bool
    pixels: int


class Call:
    """A call of a model that is under way: results of its regions, and the layout that the original's have."""

    __slots__ = ("channels_last", "images", "left", "model", "recording", "results")

    def __init__(self, model: LayoutState, images: Tensor) -> None:
        self.model = model
        self.images = images
        self.recording: Recording | None = None
        self.results: dict[int, _Result] | None = {}
        """By identity, in their order; None where no image leaves the model."""
        self.left: dict[int, Tensor] = {}

    def add(self, layout: Layout, x: Tensor, y: Tensor) -> None:
        """Note the result ``y`` of a region for the input ``x``."""
        if self.results is None:
            return
        if not self.results:
            self.channels_last = is_channels_last(self.images)
        before = self._noted(x)
        if before is None:  # of a module that is not fused, which saw what the original would, or channels_last
            before = self.channels_last and is_channels_last(x)
        self.channels_last = layout.after(before, y)
        self.results[id(y)] = _Result(weakref.ref(y), self.channels_last, y.shape[2] * y.shape[3])

    def _noted(self, tensor: Tensor) -> bool | None:
        assert self.results is not None
        noted = self.results.get(id(tensor))
        return noted.channels_last if noted is not None and noted.reference() is tensor else None

    def _of_other_module(self, tensor: Tensor) -> Tensor:
        """The result of a module that is not fused; it saw channels_last even where the original's input is not.

        Images become smaller on their way through a model, so the results of regions before it are no smaller.
        """
        assert self.results is not None
        pixels = tensor.shape[2] * tensor.shape[3]
        before = [result.channels_last for result in self.results.values() if result.pixels >= pixels]
        return tensor if (before[-1] if before else is_channels_last(self.images)) else laid_out(tensor, False)

    def leaving(self, value: Any) -> Any:
        """A result of the model, laid out as the original's."""
        if not isinstance(value, Tensor):
            return changed(value, self.leaving)
        if value.dim() != 4:
            return value
        if id(value) not in self.left:  # one result may be several outputs
            noted = self._noted(value)
            self.left[id(value)] = self._of_other_module(value) if noted is None else laid_out(value, noted)
        return self.left[id(value)]


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A structure of results with each of them changed, in place where it can be."""
    if isinstance(value, tuple):
        results = [change(one) for one in value]
        return type(value)(*results) if hasattr(value, "_fields") else tuple(results)
    if isinstance(value, list):
        value[:] = [change(one) for one in value]
    elif isinstance(value, Mapping):
        for key, one in list(value.items()):
            value[key] = change(one)  # type: ignore[index]  # outputs of models can be written to
    return value


class _Thread(threading.local):
    call: Call | None = None


CURRENT = _Thread()
"""The call of a model that this thread is in."""


def settled(layout: Layout | None, x: Tensor, y: Tensor) -> Tensor:
    """The result ``y`` of a fused region for the input ``x``, as it goes on to the next one, or leaves.

    Without a layout, in a graph or in a module made by its constructor, it stays channels_last.
    """
    if layout is None:
        return y
    call = CURRENT.call
    if call is None:
        return laid_out(y, layout.after(is_channels_last(x), y))
    call.add(layout, x, y)
    return y


def is_seen_elsewhere() -> bool:
    """Whether somebody outside sees more of a call than its result, so that the original modules are to run."""
    return is_transformed() or is_read_elsewhere() or (not torch.compiler.is_compiling() and globally_hooked())


def returns_no_image(module: nn.Module) -> None:
    """Spare the call of this model that is under way the notes on its regions."""
    if not torch.compiler.is_compiling():
        call = CURRENT.call
        if call is not None and call.model is module.__dict__.get("_mvf_layouts"):
            call.results = None


class LayoutState:
    """State of a library's model.

    Args:
        model: to which it belongs; no reference to it is kept.
        outermost: of the model that this one is a part of; None: it is none.
    """

    def __init__(self, model: nn.Module, outermost: LayoutState | None = None) -> None:
        self.is_outermost = outermost is None
        self.family: object = object() if outermost is None else outermost.family
        """The same for a model and its parts, and no reference to any of them."""
        self.programs = Programs()
        self.look(model)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_hooks": None}

    def forget(self) -> None:
        """Forget recorded calls."""
        self.programs.forget()

    def look(self, model: nn.Module) -> None:
        """Look at the model anew."""
        self._hooks: list[dict[int, Any]] | None = None
        weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
        self.has_channels_last_weights = any(isinstance(w, Tensor) and is_channels_last(w) for w in weights)

    def is_watched(self, model: nn.Module) -> bool:
        """Whether hooks see what goes from one module inside to the next."""
        if self._hooks is None:
            hidden = hidden_in(model)
            # A model on the way to parts of another one's head is called where that is not fused.
            inside = (m for m in model.modules() if m is not model)
            visible = [m for m in inside if "_mvf_layouts" in m.__dict__ or id(m) not in hidden]
            self._hooks = [hooks for m in visible for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        return any(self._hooks)


class LayoutRoot(Swapped):
    """Mixin of a library's model: what leaves it has the original's layout."""

    _mvf_methods = ("forward_features", "forward_intermediates")
    """Methods of timm's models, which take images like their forward."""
    _mvf_layouts: LayoutState

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)
        state: LayoutState | None = getattr(self, "_mvf_layouts", None)
        if state is not None:
            state.look(self)
        return self

    @classmethod
    def around(cls, before: Before, module: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The model's forward, or another method of it."""
        state: LayoutState | None = getattr(module, "_mvf_layouts", None)
        images = args[0] if args else next(iter(kwargs.values()), None)
        if state is None or not isinstance(images, Tensor) or images.dim() != 4:
            return before.forward(module, *args, **kwargs)
        if torch.compiler.is_compiling():
            result = before.forward(module, *args, **kwargs)
            is_part = not state.is_outermost or state.has_channels_last_weights
            return result if is_part or not images.is_contiguous() else contiguous(result)
        outer = CURRENT.call
        if outer is not None and outer.model.family is state.family:
            return before.forward(module, *args, **kwargs)
        key = None if before.rule is None else _key(before, module, args, kwargs)
        if key is not None:
            result, is_done = state.programs.run(key, module, images)
            if is_done:
                return result
        call = None if is_seen_elsewhere() or state.is_watched(module) else Call(state, images)
        if call is not None and key is not None:
            call.recording = state.programs.begin(key, module, images)
        CURRENT.call = call
        try:
            result = before.forward(module, *args, **kwargs)
        finally:
            CURRENT.call = outer
        if call is not None and call.recording is not None and key is not None:
            state.programs.keep(key, module, call.recording, result)
        return call.leaving(result) if call is not None and call.results else result


def _key(before: Before, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Key | None:
    """Key of a call that a program could stand for."""
    try:
        key, _ = key_of(module, args, kwargs)
    except Refused:
        return None
    return before.forward, *key


def layout_roots(model: nn.Module, kinds: Container[type[nn.Module]]) -> Iterator[tuple[nn.Module, LayoutState]]:
    """The modules of these classes in it, each with the state that says of which other one it is a part."""
    seen: set[int] = set()
    stack: list[tuple[nn.Module, LayoutState | None]] = [(model, None)]
    while stack:
        module, outermost = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if original_class(module) in kinds:
            state = LayoutState(module, outermost)
            outermost = outermost or state
            yield module, state
        stack += [(child, outermost) for child in module.children()]


def contiguous(value: Any) -> Any:
    """A result of a model with every image in it contiguous."""
    if not isinstance(value, Tensor):
        return changed(value, contiguous)
    return value.contiguous() if value.dim() == 4 else value
