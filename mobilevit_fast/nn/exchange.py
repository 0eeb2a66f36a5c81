"""Changing what a module does, in place: its class is exchanged for a subclass.

The module stays the object it was, with its children, parameters, hooks and place in the model, so that ``state_dict``,
``isinstance``, deep copies, pickles and optimisers see no difference.

Other threads may call a module while it is exchanged or given back. Its class is the one thing that changes: what a
class needs is there before it, and taken away after it, and a call takes all of that once. So a call runs what the
module was or what it became, whatever happens meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import nn

_STATE = ("_mvf", "_mvf_compute_dtype", "_mvf_graphs", "_mvf_request")


class Before(NamedTuple):
    """What was there before a mixin: the forward that it comes around, and the rule of the module's own class."""

    forward: Callable[..., Any]
    rule: Any


class Exchanged(nn.Module):
    """Base of the mixins that :func:`exchanged_class` puts in front of a module's own class."""

    _mvf_mixins: ClassVar[tuple[type[Exchanged], ...]]
    _mvf_original: ClassVar[type[nn.Module]]

    @classmethod
    def around(cls, before: Before, module: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The forward of ``module``, which may have another class by now: nothing is to be asked of that."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``. Forgets what was derived from weights, so that ``eval()`` has it made anew."""
        _forget(self)
        original_class(self).train(self, mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        _forget(self)
        original_class(self)._apply(self, *args, **kwargs)
        return self

    def _get_name(self) -> str:
        return f"Fused{type(self).__name__}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _new, (type(self)._mvf_mixins, type(self)._mvf_original), self.__dict__.copy()


class AutocastRoot(Exchanged):
    """Mixin that runs a model under autocast to another floating point type than its parameters have."""

    _mvf_compute_dtype: torch.dtype

    @classmethod
    def around(cls, before: Before, module: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The model's forward; in training, without autocast."""
        dtype = getattr(module, "_mvf_compute_dtype", None)
        if dtype is None or module.training:
            return before.forward(module, *args, **kwargs)
        with torch.autocast(next(module.parameters()).device.type, dtype=dtype):
            return before.forward(module, *args, **kwargs)


_classes: dict[tuple[tuple[type[Exchanged], ...], type[nn.Module]], type[nn.Module]] = {}


def exchanged_class(mixins: tuple[type[Exchanged], ...], original: type[nn.Module]) -> type[nn.Module]:
    """The subclass of ``original`` in which ``mixins`` come first.

    It keeps the original's name, since libraries write class names into configurations, and the signature of its
    forward, which libraries read too.
    """
    from mobilevit_fast.integrations import find_rule

    known = _classes.get((mixins, original))
    if known is not None:
        return known
    rule = find_rule(original)

    def outermost(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return original.forward(self, *args, **kwargs)

    for mixin in reversed(mixins):
        outermost = functools.partial(mixin.around, Before(outermost, rule))

    @functools.wraps(original.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return outermost(self, *args, **kwargs)

    def construct(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        return original(*args, **kwargs)  # what is made from the class anew (from_pretrained, ...) is not fused

    namespace = {
        "__new__": construct,
        "forward": forward,
        "rule": rule,
        "_mvf_mixins": mixins,
        "_mvf_original": original,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    return _classes.setdefault((mixins, original), type(original.__name__, (*mixins, original), namespace))


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that ``module`` had before any exchange."""
    return getattr(type(module), "_mvf_original", type(module))


def _forget(module: nn.Module) -> None:
    for state in state_of(module).values():
        if hasattr(state, "forget"):
            state.forget()


def state_of(module: nn.Module) -> dict[str, Any]:
    """What belongs to the exchanged class of a module."""
    return {name: value for name in _STATE if (value := module.__dict__.get(name)) is not None}


def exchange(module: nn.Module, mixins: tuple[type[Exchanged], ...], state: Mapping[str, Any]) -> None:
    """Put ``mixins`` in front of the module's own class, with the attributes that they need."""
    module.__dict__.update(state)
    module.__class__ = exchanged_class(mixins, original_class(module))


def give_back(module: nn.Module) -> None:
    """Give ``module`` its own class back."""
    module.__class__ = original_class(module)
    for name in _STATE:
        module.__dict__.pop(name, None)


def _new(mixins: tuple[type[Exchanged], ...], original: type[nn.Module]) -> nn.Module:
    cls = exchanged_class(mixins, original)
    return object.__new__(cls)
