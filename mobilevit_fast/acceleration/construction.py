"""Fused modules that are made by calling their class, without a model around.

Such a module is one of this package's plain modules with the fused class in front of its own from the start: a class
made from both. What it computes in training, its children, the names of its parameters and its fresh weights are the
plain module's, which are transformers'; rules, derived weights and the watch over these are as in an accelerated model.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mobilevit_fast.acceleration.arguments import check
from mobilevit_fast.acceleration.class_swap import Before, original_class
from mobilevit_fast.acceleration.copying import copy_weights
from mobilevit_fast.acceleration.fused import Fused, State, read_parts
from mobilevit_fast.acceleration.parts import Unsupported
from mobilevit_fast.acceleration.rules import find_rule
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models.layers import initialize_weights
from mobilevit_fast.ops.registry import check_backend


class Constructible(Fused):
    """Base of the fused modules that can be made by their constructor."""

    plain: ClassVar[type[nn.Module]]
    """The module of this package that the constructor makes; its rule says how that is fused."""
    _mvf_call: ClassVar[functools.partial[Tensor]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """An object of the class that has the plain module's class behind this one."""
        return object.__new__(cls._constructed_class())

    @classmethod
    def _constructed_class(cls) -> type[Self]:
        """The class of the modules that calling this class makes."""
        if issubclass(cls, cls.plain):
            return cls
        known = _classes.get(cls)
        return _classes.setdefault(cls, _class_for(cls)) if known is None else known

    def forward(self, features: Tensor) -> Tensor:
        """The fused region; in training, and where gradients are needed, the plain modules."""
        return type(self)._mvf_call(self, features)

    def copy_weights_from(self, module: nn.Module) -> Self:
        """Take over the weights and statistics of a module of transformers, timm or this package. Returns ``self``.

        Names may differ; what both compute may not. Types and devices stay as they are here. State dicts of
        transformers' modules also load as they are.

        Raises:
            TypeError: ``module`` is not of the same kind.
            ValueError: it has other sizes or settings than this one, or is not what its class says (hooks, quantised
                children, ...). Nothing is copied.
        """
        caller = f"{type(self).__name__}.copy_weights_from"
        source = find_rule(original_class(module))
        if source is None or source.fused.kind != self.kind:
            name = f"{type(module).__module__}.{type(module).__qualname__}"
            raise TypeError(f"{caller}: expected a module that is one, got {name}")
        try:
            copy_weights([(path, _parts(one), _parts(other)) for path, one, other in self._counterparts(module)])
        except Unsupported as reason:
            raise ValueError(f"{caller}: {type(module).__name__}: {reason}") from None
        except ValueError as difference:
            raise ValueError(f"{caller}: {difference}") from None
        return self

    def _counterparts(self, module: nn.Module) -> list[tuple[str, nn.Module, nn.Module]]:
        """The regions in this module, and what has their weights in ``module``, with the names of both in errors."""
        return [("", self, module)]

    @classmethod
    def _adopt(cls, module: nn.Module, backend: str) -> None:
        """Make a plain module what this class's constructor would have made."""
        module.__dict__["_mvf"] = State(backend)
        module.__class__ = cls._constructed_class()


def _parts(module: nn.Module) -> Any:
    rule = find_rule(original_class(module))
    assert rule is not None, "asked for before"
    return read_parts(module, rule)


_classes: dict[type[Constructible], type[Any]] = {}


def _class_for(cls: type[Constructible]) -> type[Any]:
    rule = find_rule(cls.plain)
    assert rule is not None, "this package's own modules have rules"
    if issubclass(cls, rule.fused):
        front: tuple[type[Any], ...] = (cls,)
    else:
        front = (rule.fused,) if issubclass(rule.fused, cls) else (cls, rule.fused)
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "rule": rule,
        "_mvf_call": functools.partial(front[0].around, Before(cls.plain.forward, rule)),
        "_mvf_constructor": cls,
        "_mvf_original": cls.plain,
    }
    return type(cls.__name__, (*front, cls.plain), namespace)


@contextmanager
def constructing(module: Constructible, backend: str, device: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """Around the constructor of a plain module: what it makes lies on ``device``, has fresh weights, and is fused.

    Args:
        backend: "auto" or the kernel to run.
        device, dtype: as for torch's modules; None: the default ones.
    """
    check_backend(backend)
    check(type(module).__name__, dtype=dtype)
    with nullcontext() if device is None else torch.device(device):
        yield
    initialize_weights(module, MobileViTConfig().initializer_range)
    module.to(dtype=dtype)
    module.__dict__["_mvf"] = State(backend)


def sizes(**fields: Any) -> MobileViTConfig:
    """Configuration for the sizes of the plain modules, with these fields, which have been checked as arguments."""
    config = MobileViTConfig()
    for name, value in fields.items():
        setattr(config, name, value)
    return config
