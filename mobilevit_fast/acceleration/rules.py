"""Which modules of which library become fused: one table of rules for each library, which registers itself.

A library's table is read only when that library is in use, so that importing this package imports none of them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

if TYPE_CHECKING:
    from mobilevit_fast.acceleration.fused import Fused


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


class Integration(NamedTuple):
    """The rules of one library.

    Attributes:
        name: of the library.
        rules: by the class that each is for.
        markers: classes of which a model must hold one for the rules to apply to it.
        models: classes of whole models; between the regions of one, nothing but the library's code runs.
        settings: what the forward of one of these reads besides its arguments, modules and attributes.
    """

    name: str
    rules: dict[type[nn.Module], Rule]
    markers: tuple[type[nn.Module], ...]
    models: tuple[type[nn.Module], ...]
    settings: Callable[[Any], tuple[Any, ...]]


def _no_settings(model: nn.Module) -> tuple[Any, ...]:
    return ()


_TABLES: dict[str, tuple[str, str]] = {}
_LOADED: dict[str, Integration] = {}


def register(name: str, trigger: str, table: str) -> None:
    """Announce a library: the module without which no model of it can exist, and the one that holds its rules."""
    _TABLES[name] = (trigger, table)


def integrations() -> list[Integration]:
    """The integrations of all libraries that are imported in this process."""
    for name, (trigger, module) in _TABLES.items():
        if name not in _LOADED and trigger in sys.modules:
            table = importlib.import_module(module)
            rules = {rule.original: rule for rule in table.RULES}
            settings = getattr(table, "settings", _no_settings)
            _LOADED[name] = Integration(name, rules, table.MARKERS, table.MODELS, settings)
    return [_LOADED[name] for name in _TABLES if name in _LOADED]  # in one order, whichever was imported first


def supported_libraries() -> str:
    """The libraries whose models can be accelerated, in words."""
    return "transformers (MobileViT…), timm (mobilevit_…) or mobilevit_fast itself"


def find_rule(original: type[nn.Module]) -> Rule | None:
    """The rule for exactly this class, if a library that is in use has one."""
    for integration in integrations():
        if original in integration.rules:
            return integration.rules[original]
    return None


def settings_of(original: type[nn.Module]) -> Callable[[Any], tuple[Any, ...]]:
    """How to ask a model of exactly this class for its settings; nothing is known of any other module."""
    return next((i.settings for i in integrations() if original in i.models), _no_settings)


def calls_others(original: type[nn.Module]) -> bool:
    """Whether a class, if it has no rule, does nothing but call modules: of a library's own file of models."""
    return any(original.__module__ == kind.__module__ for i in integrations() for kind in (*i.models, *i.rules))
