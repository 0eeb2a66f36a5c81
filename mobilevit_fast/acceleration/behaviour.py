"""Behaviour of modules besides their parameters: the functions that its class looks up, and whose they are.

A fused region stands for the code of the classes inside it. Others may replace that code: set a method on a class or
on an instance, or a function in the module that the code takes it from (``torch.nn.functional.softmax``). So the names
that the code looks up are followed, from ``forward`` on through the methods of the class. What they stand for has to be
the library's own, and is compared from call to call.

Not followed are functions that those functions call in turn, methods of tensors, and operators of torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from torch import nn

from mobilevit_fast.acceleration.changes import Changes
from mobilevit_fast.acceleration.class_swap import Swapped, is_forward_of_class

_CALL = ("forward", "__call__", "_call_impl", "_wrapped_call_impl", "__getattr__", "__getattribute__")
"""The names by which every module is called. No others of ``nn.Module`` count, which has very many."""

_IMPLICIT = ("__bool__", "__iter__", "__len__")
"""Names that code looks up without saying so, of containers."""

_DECORATORS = {"contextlib", "functools"}
"""Modules of Python whose functions wrap those of a library."""

_ABSENT = object()

_changes = Changes()
"""Counter of all classes that behaviours are of."""


class Function(NamedTuple):
    """A function that code takes from a Python module by its name."""

    namespace: dict[str, Any]
    name: str
    value: Any


class Behaviour(NamedTuple):
    """Names that the code of a class looks up when one of its modules is called.

    Attributes:
        names: in the module and in its class.
        definitions: of each, all that the class and its bases have, with the class that has it.
        functions: in Python modules.
        methods: the names that are functions of the class.
        replaced: a definition or function that is somebody else's, in words; empty where there is none.
    """

    names: tuple[str, ...]
    definitions: tuple[tuple[tuple[type, Any], ...], ...]
    functions: tuple[Function, ...]
    methods: tuple[str, ...]
    replaced: str

    def is_current(self, kind: type[nn.Module], is_region: bool) -> bool:
        """Whether every name of the class still stands for the same."""
        for name, found in zip(self.names, self.definitions, strict=True):
            now = _definitions(kind, name, is_region)
            if len(now) != len(found) or any(a is not b for (_, a), (_, b) in zip(now, found, strict=True)):
                return False
        return True


class _Known(NamedTuple):
    behaviour: Behaviour
    number: int
    """Number of changes until it was current."""


_known: dict[tuple[type, bool], _Known] = {}


def behaviour_of(kind: type[nn.Module], is_region: bool = False) -> Behaviour:
    """Behaviour of the modules of a class, as it is now.

    Args:
        kind: the class.
        is_region: of modules that are fused: they stand for the original forward and what that calls. What is called
            before it is not passed by.
    """
    number = _changes.number()
    found = _known.get((kind, is_region))
    behaviour = None if found is None else found.behaviour
    if behaviour is not None and not all(f.namespace.get(f.name) is f.value for f in behaviour.functions):
        behaviour = None
    if found is None or found.number != number or not _changes.counts:
        _changes.follow(kind)
        number = _changes.number()
        if behaviour is not None and not behaviour.is_current(kind, is_region):
            behaviour = None
    behaviour = behaviour or _examine(kind, is_region)
    _known[kind, is_region] = _Known(behaviour, number)
    return behaviour


def _methods_and_replaced(kind: type[nn.Module], is_region: bool) -> tuple[tuple[str, ...], str]:
    behaviour = behaviour_of(kind, is_region)
    return behaviour.methods, behaviour.replaced


# A graph that is compiled has the result as a constant. ``torch.compiler`` would import the compiler to say so.
_methods_and_replaced._dynamo_marked_constant = True  # type: ignore[attr-defined]


def replaced_code(module: nn.Module, is_region: bool = False) -> str:
    """Code of a module that is not its library's, in words; empty where all is."""
    methods, replaced = _methods_and_replaced(type(module), is_region)
    for name in methods:
        if name != "forward" and name in module.__dict__ and not _is_own(module, name):
            return f"its {name} method was replaced on the instance"
    return replaced


def has_forward_of_its_own(module: nn.Module, is_region: bool = False) -> bool:
    """Whether a module runs another forward than its class has.

    Not so with the method of its class, which libraries that wrapped it leave behind when they are removed, nor, of a
    fused region, with what wraps that and says so (as ``functools.wraps`` does): it calls the fused forward.
    """
    if "forward" not in module.__dict__:
        return False
    if not (is_region and isinstance(module, Swapped)):
        return not _is_own(module, "forward")
    forward, own = module.__dict__["forward"], type(module).forward
    innermost = getattr(type(module)._mvf_functions["forward"], "__wrapped__", own)
    while forward is not None and getattr(forward, "__func__", forward) not in (own, innermost):
        forward = getattr(forward, "__wrapped__", None)
    return forward is None


def _is_own(module: nn.Module, name: str) -> bool:
    method = module.__dict__[name]
    if name == "forward":
        return is_forward_of_class(module, method)
    is_bound = isinstance(method, MethodType) and method.__self__ is module
    return is_bound and method.__func__ is getattr(type(module), name, None)


class Code:
    """The code that the modules of a region run, as it is now.

    Attributes:
        functions: that it takes from Python modules; they are compared by the caller.
    """

    __slots__ = ("_attributes", "_behaviours", "_kind", "_number", "functions")

    def __init__(self, kinds: Iterable[type[nn.Module]], region: nn.Module) -> None:
        self._number = _changes.number()
        self._kind = type(region)
        own = behaviour_of(self._kind, True)
        self._behaviours = [(kind, False, behaviour_of(kind)) for kind in kinds]
        self._behaviours.append((self._kind, True, own))
        functions = {(id(f.namespace), f.name): f for _, _, behaviour in self._behaviours for f in behaviour.functions}
        self.functions = list(functions.values())
        held = vars(region)
        definitions = zip(own.names, own.definitions, strict=True)
        names = [name for name, found in definitions if name not in _CALL and (found or name in held)]
        self._attributes = [(name, _attribute(region, name)) for name in names]

    def is_unchanged(self, region: nn.Module) -> bool:
        """Whether the classes and the region's own attributes that the code looks up are what they were."""
        if type(region) is not self._kind:
            return False
        held = region.__dict__
        for name, value in self._attributes:
            if held.get(name, _ABSENT) is not value and _attribute(region, name) is not value:
                return False
        number = _changes.number()
        if number != self._number or not _changes.counts:
            if not all(behaviour.is_current(kind, is_region) for kind, is_region, behaviour in self._behaviours):
                return False
            self._number = number  # what changed was something else
        return True


def _attribute(module: nn.Module, name: str) -> Any:
    """Value that a module itself has under a name; of its own method the function, which does not hold the module."""
    value = module.__dict__.get(name, _ABSENT)
    return value.__func__ if isinstance(value, MethodType) and value.__self__ is module else value


def _definitions(kind: type, name: str, is_region: bool) -> tuple[tuple[type, Any], ...]:
    """Definitions of a name in a class and its bases, this package's mixins left out."""
    original = getattr(kind, "_mvf_original", kind)
    found = []
    for cls in (original if is_region and name == "forward" else kind).__mro__:
        if name not in vars(cls) or cls is object or (cls is nn.Module and name not in _CALL):
            continue
        value = vars(cls)[name]
        is_mixin = issubclass(cls, Swapped) and not issubclass(cls, original)
        made = vars(cls).get("_mvf_functions", {}).get(name)
        if value is made or (is_mixin and _package(cls.__module__) == _package(__name__)):
            continue
        found.append((cls, value))
    return tuple(found)


def _examine(kind: type[nn.Module], is_region: bool) -> Behaviour:
    names = dict.fromkeys((*_CALL, *_IMPLICIT))
    definitions: dict[str, tuple[tuple[type, Any], ...]] = {}
    functions: dict[tuple[int, str], Function] = {}
    open_names = list(names)
    while open_names:
        name = open_names.pop()
        definitions[name] = _definitions(kind, name, is_region)
        for cls, value in definitions[name]:
            for function in _functions(value) if cls is not nn.Module else ():
                for code in _codes(function.__code__):
                    new = [other for other in code.co_names if other not in names]
                    names |= dict.fromkeys(new)
                    open_names += new
                    for found in _taken(code, function.__globals__):
                        functions[id(found.namespace), found.name] = found
    methods = [name for name in names if any(_functions(value) for _, value in definitions[name])]
    base = getattr(kind, "_mvf_original", kind).__mro__ if is_region else kind.__mro__
    replaced = [
        f"{cls.__qualname__}.{name} is {_described(value)}"
        for name in names
        for cls, value in definitions[name]
        if cls not in base or not _is_of_class(value, cls)
    ]
    library = _package(base[0].__module__)
    replaced += [
        f"{f.namespace.get('__name__')}.{f.name} is {_described(f.value)}"
        for f in functions.values()
        if not _is_of_packages(f.value, {library, "torch", _package(f.namespace.get("__name__", ""))})
    ]
    return Behaviour(
        tuple(names),
        tuple(definitions[name] for name in names),
        tuple(functions.values()),
        tuple(methods),
        replaced[0] if replaced else "",
    )


def _package(module: Any) -> str:
    return str(module).partition(".")[0]


def _functions(value: Any) -> list[FunctionType]:
    """The Python functions that an attribute of a class runs: it, and those that it wraps, from outside in."""
    found: list[FunctionType] = []
    while value is not None:
        if isinstance(value, FunctionType):
            if value in found:
                break
            found.append(value)
        elif isinstance(value, property):
            value = value.fget
            continue
        elif isinstance(value, classmethod | staticmethod | MethodType):
            value = value.__func__
            continue
        elif isinstance(value, partial):
            value = value.func
            continue
        value = getattr(value, "__wrapped__", None)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _taken(code: CodeType, namespace: dict[str, Any]) -> Iterator[Function]:
    """The functions that code takes from its own module, and from modules that it reaches by its names."""
    namespaces = [namespace]
    for names in namespaces:
        for name in code.co_names:
            value = names.get(name)
            if isinstance(value, ModuleType):
                if not any(vars(value) is known for known in namespaces):
                    namespaces.append(vars(value))
            elif callable(value) and not isinstance(value, type):
                yield Function(names, name, value)


def _is_of_class(value: Any, cls: type) -> bool:
    """Whether an attribute of a class is what its library put there."""
    functions = _functions(value)
    if not functions:
        return _is_of_packages(value, {_package(cls.__module__), "torch"})
    *wrappers, innermost = functions
    package = _package(cls.__module__)
    if cls is nn.Module:  # whose calls torch.export and torch.fx follow by functions of their own
        return _is_of_packages(value, {package})
    return (
        innermost.__globals__.get("__name__") == cls.__module__
        and innermost.__qualname__.rpartition(".")[0] == cls.__qualname__
        and (not wrappers or package != "torch")
        and all(_package(wrapper.__globals__.get("__name__")) == package for wrapper in wrappers)
    )


def _is_of_packages(value: Any, packages: set[str]) -> bool:
    """Whether a function was defined in one of these packages; anything that is no function counts as such."""
    functions = _functions(value)
    if functions:
        return all(_package(f.__globals__.get("__name__")) in packages | _DECORATORS for f in functions)
    return not callable(value) or isinstance(value, type) or _package(type(value).__module__) in {*packages, "builtins"}


def _described(value: Any) -> str:
    functions = _functions(value)
    if functions:
        return f"{functions[0].__globals__.get('__name__')}.{functions[0].__code__.co_qualname}"
    return f"a {type(value).__module__}.{type(value).__qualname__}"
