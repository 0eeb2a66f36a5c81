"""Changing what a module does, in place: its class is exchanged for a subclass.

The module stays the object it was, with its children, parameters, hooks and place in the model, so that ``state_dict``,
``isinstance``, deep copies, pickles and optimisers see no difference.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import nn


class Exchanged(nn.Module):
    """Base of the mixins that :func:`exchanged_class` puts in front of a module's own class."""

    _mvf_mixins: ClassVar[tuple[type[Exchanged], ...]]
    _mvf_original: ClassVar[type[nn.Module]]

    def _get_name(self) -> str:
        return f"Fused{type(self).__name__}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _new, (type(self)._mvf_mixins, type(self)._mvf_original), self.__dict__.copy()


class AutocastRoot(Exchanged):
    """Mixin that runs a model under autocast to another floating point type than its parameters have."""

    _mvf_compute_dtype: torch.dtype

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward; in training, without autocast."""
        if self.training:
            return super().forward(*args, **kwargs)
        with torch.autocast(next(self.parameters()).device.type, dtype=self._mvf_compute_dtype):
            return super().forward(*args, **kwargs)


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
    first = mixins[0]

    @functools.wraps(original.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return first.forward(self, *args, **kwargs)

    def construct(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        return original(*args, **kwargs)  # what is made from the class anew (from_pretrained, ...) is not fused

    namespace = {
        "__new__": construct,
        "forward": forward,
        "rule": find_rule(original),
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


def put_in_front(root: nn.Module, mixin: type[Exchanged], **state: Any) -> None:
    """Put one more mixin in front of a module's class, and what it keeps in the module."""
    mixins = getattr(type(root), "_mvf_mixins", ())
    root.__dict__.update(state)
    root.__class__ = exchanged_class((mixin, *mixins), original_class(root))


def compute_in(root: nn.Module, dtype: torch.dtype) -> None:
    """Make ``root`` compute in ``dtype`` from now on."""
    put_in_front(root, AutocastRoot, _mvf_compute_dtype=dtype)


def give_back(module: nn.Module) -> None:
    """Give ``module`` its own class back."""
    module.__class__ = original_class(module)
    for name in ("_mvf", "_mvf_compute_dtype", "_mvf_graphs", "_mvf_request"):
        module.__dict__.pop(name, None)


def _new(mixins: tuple[type[Exchanged], ...], original: type[nn.Module]) -> nn.Module:
    cls = exchanged_class(mixins, original)
    return object.__new__(cls)
