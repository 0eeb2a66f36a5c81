"""Which modules of which library become fused: one table of rules for each library.

A library's table is read only when that library is in use, so that importing this package imports none of them.
"""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple

from torch import nn

from mobilevit_fast.nn.fused import Rule

_TRIGGERS = {
    "native": "mobilevit_fast.models",
    "transformers": "transformers.models.mobilevit.modeling_mobilevit",
    "timm": "timm.models.mobilevit",
}
"""Integration by name, and the module without which no model of its library can exist."""


class Integration(NamedTuple):
    """The rules of one library, and the classes of which a model must hold one for the rules to apply to it."""

    name: str
    rules: dict[type[nn.Module], Rule]
    markers: tuple[type[nn.Module], ...]


_LOADED: dict[str, Integration] = {}


def integrations() -> list[Integration]:
    """The integrations of all libraries that are imported in this process."""
    for name, trigger in _TRIGGERS.items():
        if name not in _LOADED and trigger in sys.modules:
            table = importlib.import_module(f"{__name__}.{name}")
            rules = {rule.original: rule for rule in table.RULES}
            _LOADED[name] = Integration(name, rules, table.MARKERS)
    return [_LOADED[name] for name in _TRIGGERS if name in _LOADED]  # in one order, whichever was imported first


def supported_libraries() -> str:
    """The libraries whose models can be accelerated, in words."""
    return "transformers (MobileViT…), timm (mobilevit_…) or mobilevit_fast itself"


def find_rule(original: type[nn.Module]) -> Rule | None:
    """The rule for exactly this class, if a library that is in use has one."""
    for integration in integrations():
        if original in integration.rules:
            return integration.rules[original]
    return None
