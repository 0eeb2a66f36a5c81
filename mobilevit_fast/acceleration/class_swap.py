"""Changing what a module does, in place: its class is swapped for a subclass.

The module stays the object it was, with its children, parameters, hooks and place in the model, so that ``state_dict``,
``isinstance``, deep copies, pickles and optimisers see no difference.

Other threads may call a module while it is swapped or given back. Its class is the one thing that changes: what a
class needs is there before it, and taken away after it, and a call takes all of that once. So a call runs what the
module was or what it became, whatever happens meanwhile.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from mobilevit_fast.acceleration.changes import Silent
from mobilevit_fast.acceleration.rules import find_rule
from mobilevit_fast.ops.registry import is_read_elsewhere

_STATE = ("_mvf", "_mvf_compute_dtype", "_mvf_graphs", "_mvf_layouts", "_mvf_request")
"""Attributes of modules whose class was swapped; the first is what a module has that was made fused."""


class Before(NamedTuple):
    """State before a mixin: the forward that it comes around, and the rule of the module's own class."""

    forward: Callable[..., Any]
    rule: Any


class Swapped(nn.Module):
    """Base of the mixins that :func:`swapped_class` puts in front of a module's own class."""

    _mvf_methods: ClassVar[tuple[str, ...]] = ()
    """Names of methods that the mixin comes around, besides the forward."""
    _mvf_mixins: ClassVar[tuple[type[Swapped], ...]] = ()
    _mvf_original: ClassVar[type[nn.Module]]
    _mvf_own: ClassVar[type[nn.Module]]
    _mvf_functions: ClassVar[Mapping[str, Any]]
    """By name, the methods that mixins come around, as :func:`swapped_class` made them."""
    _mvf_constructor: ClassVar[type[nn.Module]]
    """The class that was called, of a module that its constructor made a fused one
    (:mod:`mobilevit_fast.acceleration.construction`)."""

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
        return type(self).__name__ if is_constructed(self) else f"Fused{type(self).__name__}"

    def _replicate_for_data_parallel(self) -> Self:
        """As ``nn.Module``. A replica lives for one call: it derives nothing that outlives it, and is no graph."""
        replica = original_class(self)._replicate_for_data_parallel(self)
        for name, value in state_of(self).items():
            replica.__dict__[name] = copy.copy(value)
        replica.__dict__.pop("_mvf_graphs", None)
        drop_forward_of_class(replica, self)
        return replica

    def __reduce_ex__(self, protocol: Any) -> Any:
        own = own_class(self)
        return _new, (type(self)._mvf_mixins, getattr(own, "_mvf_constructor", own)), self.__dict__.copy()


class AutocastRoot(Swapped):
    """Mixin that runs a model under autocast to another floating point type than its parameters have.

    Whoever reads the original model reads it without.
    """

    _mvf_compute_dtype: torch.dtype

    @classmethod
    def around(cls, before: Before, module: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The model's forward; in training, without autocast."""
        dtype = getattr(module, "_mvf_compute_dtype", None)
        if dtype is None or module.training or is_read_elsewhere():
            return before.forward(module, *args, **kwargs)
        known = next(module.parameters(), None)
        if known is None:  # a replica of nn.DataParallel has none
            known = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(known.device.type, dtype=dtype):
            return before.forward(module, *args, **kwargs)


_classes: dict[tuple[tuple[type[Swapped], ...], type[nn.Module]], type[nn.Module]] = {}


def swapped_class(mixins: tuple[type[Swapped], ...], original: type[nn.Module]) -> type[nn.Module]:
    """The subclass of ``original`` in which ``mixins`` come first.

    It keeps the original's name, since libraries write class names into configurations, and the signature of its
    forward, which libraries read too.
    """
    known = _classes.get((mixins, original))
    if known is not None:
        return known
    known_as = getattr(original, "_mvf_original", original)
    rule = find_rule(known_as)

    def new(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        return object.__new__(cls)  # libraries make an empty module and give it another one's attributes

    @functools.wraps(original.__init__)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is made:
            self.__class__ = original  # what is made from the class anew (from_pretrained, ...) is not fused
        original.__init__(self, *args, **kwargs)

    others = {name: mixin for mixin in mixins for name in mixin._mvf_methods if hasattr(original, name)}
    namespace = {
        "__new__": new,
        "__init__": init,
        "forward": _around("forward", mixins, original, rule),
        **{name: _around(name, (mixin,), original, rule) for name, mixin in others.items()},
        "rule": rule,
        "_mvf_mixins": mixins,
        "_mvf_original": known_as,
        "_mvf_own": original,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        # torch.jit.script evaluates these, and compiles properties: it is to find the original's alone.
        "__annotations__": _annotations(original),
        "__jit_unused_properties__": [*getattr(original, "__jit_unused_properties__", ()), "takes_bytes"],
    }
    bases = (*mixins, original)
    try:
        made: Any = type(original.__name__, bases, namespace)
    except TypeError:  # of a base that asks its subclasses for arguments
        made = type(original.__name__, (Silent, *bases), namespace)
    # As the original's __init_subclass__ left them.
    made._mvf_functions = {name: vars(made)[name] for name in ("forward", *others)}
    return _classes.setdefault((mixins, original), made)


def _annotations(cls: type) -> dict[str, Any]:
    """Those of a class or, where it has none, of the first of its bases that has some."""
    own = inspect.get_annotations(cls)
    return dict(own) if own else next(filter(None, map(_annotations, cls.__bases__)), {})


def _around(name: str, mixins: tuple[type[Swapped], ...], original: type[nn.Module], rule: Any) -> FunctionType:
    """A method of ``original`` with ``mixins`` around it, the first one outermost."""
    method = getattr(original, name)

    def outermost(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(original, name)(self, *args, **kwargs)  # asked anew, as a class may be given another one

    for mixin in reversed(mixins):
        outermost = functools.partial(mixin.around, Before(outermost, rule))

    whole = _as_read(lambda self, *args, **kwargs: outermost(self, *args, **kwargs), method)
    with suppress(TypeError, ValueError):
        whole.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    read = inspect.unwrap(method).__code__
    if (read.co_argcount, read.co_kwonlyargcount) == (2, 0) and not read.co_flags & _VARIABLE:
        # torch.fx takes the arguments from the code of what is wrapped. Libraries take what they find there for a
        # forward that they wrapped themselves, and leave it on the module: that is to be around the original, too.
        of_one = _as_read(lambda self, x: outermost(self, x), method, co_varnames=read.co_varnames[:2])
        whole.__wrapped__ = of_one  # type: ignore[attr-defined]
    return whole


_VARIABLE = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def _as_read(function: Any, method: Any, **code: Any) -> FunctionType:
    """``function`` as it is to those who read code (torch.jit.script): the source and the globals of ``method``."""
    read = inspect.unwrap(method).__code__
    code |= {"co_filename": read.co_filename, "co_firstlineno": read.co_firstlineno, "co_name": "accelerated"}
    made = FunctionType(
        function.__code__.replace(**code), method.__globals__, method.__name__, None, function.__closure__
    )
    functools.update_wrapper(made, method)
    del made.__wrapped__  # type: ignore[attr-defined]
    return made


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class whose forward ``module`` runs where nothing is fused: the one that it had before any swap."""
    return getattr(type(module), "_mvf_original", type(module))


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class that :func:`give_back` gives: the original one, or the fused one that the module was made with."""
    return vars(type(module)).get("_mvf_own", type(module))


def is_constructed(module: nn.Module) -> bool:
    """Whether ``module`` is fused because its constructor made it so."""
    return hasattr(type(module), "_mvf_constructor")


def exact_class(module: nn.Module) -> type[nn.Module]:
    """The class that tells what ``module`` computes: the original one, or a user's subclass, who may know better."""
    constructor = getattr(type(module), "_mvf_constructor", None)
    return original_class(module) if constructor is None or "plain" in vars(constructor) else constructor


def _forget(module: nn.Module) -> None:
    for state in state_of(module).values():
        if hasattr(state, "forget"):
            state.forget()


def state_of(module: nn.Module) -> dict[str, Any]:
    """Attributes that belong to the swapped class of a module."""
    return {name: value for name in _STATE if (value := module.__dict__.get(name)) is not None}


def swap_class(module: nn.Module, mixins: tuple[type[Swapped], ...], state: Mapping[str, Any]) -> None:
    """Put ``mixins`` in front of the module's own class, with the attributes that they need."""
    own = own_class(module)
    missing = tuple(mixin for mixin in mixins if not issubclass(own, mixin))  # others make subclasses of ours
    put_class(module, swapped_class(missing, own) if missing else own, state)


def give_back(module: nn.Module) -> None:
    """Give ``module`` its own class back."""
    put_class(module, own_class(module), {})


def put_class(module: nn.Module, kind: type[nn.Module], state: Mapping[str, Any]) -> None:
    """Give ``module`` a class with exactly this state, at no moment without either."""
    module.__dict__.update(state)
    module.__class__ = kind
    drop_forward_of_class(module)
    kept = _STATE[:1] if is_constructed(module) else ()
    for name in _STATE:
        if name not in kept and name not in state:
            module.__dict__.pop(name, None)


def is_forward_of_class(owner: nn.Module, method: Any) -> bool:
    """Whether a bound method is the forward of a class that ``owner`` has, had, or got by :func:`swap_class`.

    Libraries that wrapped it leave it behind on the module when they take themselves out.
    """
    if not isinstance(method, MethodType) or method.__self__ is not owner:
        return False
    function, original = method.__func__, original_class(owner)
    if function is type(owner).forward or function is original.forward:
        return True
    swapped = [kind for kind in list(_classes.values()) if vars(kind)["_mvf_original"] is original]
    return any(function in (kind.forward, getattr(kind.forward, "__wrapped__", None)) for kind in swapped)


def drop_forward_of_class(module: nn.Module, owner: nn.Module | None = None) -> None:
    """Take such a forward away, which hides that of the class; it is bound to ``owner``, by default the module."""
    owner = module if owner is None else owner
    if "forward" in module.__dict__ and is_forward_of_class(owner, module.__dict__["forward"]):
        module.__dict__.pop("forward", None)


def defuse(module: nn.Module) -> None:
    """Have ``module`` run its original forward from now on, even where its constructor made it fused."""
    give_back(module)
    module.__dict__.pop(_STATE[0], None)


def _new(mixins: tuple[type[Swapped], ...], own: Any) -> nn.Module:
    if hasattr(own, "_constructed_class"):
        own = own._constructed_class()
    return object.__new__(swapped_class(mixins, own) if mixins else own)
