"""Values that the constructors of :mod:`mobilevit_fast.nn` take; one sentence for those that they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from mobilevit_fast.config.checks import LARGEST, RULES, Rule
from mobilevit_fast.kernels.epilogue import ACTIVATIONS
from mobilevit_fast.limits import shortened

_COUNT, _SIZE, _SWITCH, _PROBABILITY = (
    RULES[field] for field in ("num_channels", "patch_size", "qkv_bias", "hidden_dropout_prob")
)


def _numbers(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _is_padding(value: Any) -> bool:
    if not all(type(number) is int for number in _numbers(value)):
        return False
    return _SIZE.accepts([number + 1 for number in value] if isinstance(value, Sequence) else value + 1)


ARGUMENTS: dict[str, Rule] = {
    "activation": Rule(
        lambda value: isinstance(value, str) and value in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}"
    ),
    "atrous_rates": Rule(
        lambda value: isinstance(value, list | tuple) and len(value) > 0 and all(map(_COUNT.accepts, value)),
        "one or more integers of at least 1",
    ),
    "attention_dropout": _PROBABILITY,
    "bias": _SWITCH,
    "channels": _COUNT,
    "dilation": _COUNT,
    "dropout": _PROBABILITY,
    "dtype": Rule(
        lambda value: value is None or (isinstance(value, torch.dtype) and value.is_floating_point),
        "a floating point type",
    ),
    "expand_ratio": RULES["expand_ratio"],
    "expanded_channels": _COUNT,
    "groups": _COUNT,
    "hidden_size": _COUNT,
    "in_channels": _COUNT,
    "kernel_size": RULES["conv_kernel_size"],
    "layer_norm_eps": RULES["layer_norm_eps"],
    "mlp_ratio": RULES["mlp_ratio"],
    "num_classes": _COUNT,
    "num_heads": RULES["num_attention_heads"],
    "num_layers": _COUNT,
    "out_channels": _COUNT,
    "patch_size": _SIZE,
    "qkv_bias": _SWITCH,
    "stride": Rule(lambda value: _COUNT.accepts(value) and value <= 2, "1 or 2"),
    "use_normalization": _SWITCH,
}
"""Rule of each argument by itself."""

GEOMETRY: dict[str, Rule] = {
    "kernel_size": _SIZE,
    "stride": _SIZE,
    "padding": Rule(_is_padding, "an integer of at least 0 or a pair (height, width) of them"),
    "dilation": _SIZE,
}
"""The same for convolutions that take these as ``nn.Conv2d`` does."""


def refuse(owner: str, name: str, expected: str, got: Any) -> NoReturn:
    """Raise the ValueError of an argument: what was expected, what came."""
    raise ValueError(f"{owner}.{name}: expected {expected}, got {shortened(got)}")


def check(owner: str, rules: dict[str, Rule] = ARGUMENTS, /, **values: Any) -> None:
    """Check each argument by its rule.

    Raises:
        ValueError: the first that does not fit.
    """
    for name, value in values.items():
        if not rules[name].accepts(value):
            refuse(owner, name, rules[name].expected, value)
        if any(isinstance(number, int) and number > LARGEST for number in _numbers(value)):
            refuse(owner, name, f"at most {LARGEST}", value)
