"""Rules for the fields of a MobileViTConfig, and the readers of those that JSON writes in another form."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from mobilevit_fast import limits
from mobilevit_fast.config.activations import ACTIVATIONS
from mobilevit_fast.limits import shortened

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


def require(field: str, ok: bool, expected: str, got: Any) -> None:
    """Raise a ValueError that names the field, what was expected and what came, unless `ok`."""
    if not ok:
        raise ValueError(f"MobileViTConfig.{field}: expected {expected}, got {shortened(got)}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive_int(value: Any) -> bool:
    return _is_int(value) and value >= 1


def _is_number(value: Any) -> bool:
    # abs(): integers may be too large for math.isfinite.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _are_positive_ints(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(_is_positive_int, value))


def _is_size(value: Any) -> bool:
    return _is_positive_int(value) or _are_positive_ints(value, 2)


class Rule(NamedTuple):
    """Whether one value fits by itself, and the words for what would."""

    accepts: Callable[[Any], bool]
    expected: str


def _are_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


_POSITIVE_INT = Rule(_is_positive_int, "an integer of at least 1")
_SIZE = Rule(_is_size, "an integer of at least 1 or a pair (height, width) of them")
_POSITIVE = Rule(lambda value: _is_number(value) and value > 0, "a number above 0")
_NOT_NEGATIVE = Rule(lambda value: _is_number(value) and value >= 0, "a number of at least 0")
_PROBABILITY = Rule(lambda value: _is_number(value) and 0 <= value <= 1, "a probability, 0 to 1")
_BOOL = Rule(lambda value: isinstance(value, bool), "True or False")


def _list_of(count: int) -> Rule:
    return Rule(lambda value: _are_positive_ints(value, count), f"{count} integers of at least 1")


def _one_of(*allowed: Any) -> Rule:
    return Rule(
        # Without the type check True would pass for 1 and 8.0 for 8.
        lambda value: any(type(value) is type(choice) and value == choice for choice in allowed),
        f"one of {', '.join(map(str, allowed))}",
    )


RULES: dict[str, Rule] = {
    "num_channels": _POSITIVE_INT,
    "image_size": _SIZE,
    "patch_size": _SIZE,
    "hidden_sizes": _list_of(3),
    "neck_hidden_sizes": _list_of(7),
    "num_attention_heads": _POSITIVE_INT,
    "mlp_ratio": _POSITIVE,
    "expand_ratio": _POSITIVE,
    "hidden_act": _one_of(*ACTIVATIONS),
    "conv_kernel_size": Rule(lambda value: _is_positive_int(value) and value % 2 == 1, "an odd integer of at least 1"),
    "output_stride": _one_of(8, 16, 32),
    "hidden_dropout_prob": _PROBABILITY,
    "attention_probs_dropout_prob": _PROBABILITY,
    "classifier_dropout_prob": _PROBABILITY,
    "initializer_range": _NOT_NEGATIVE,
    "layer_norm_eps": _NOT_NEGATIVE,
    "qkv_bias": _BOOL,
    "aspp_out_channels": _POSITIVE_INT,
    "atrous_rates": _list_of(3),
    "aspp_dropout_prob": _PROBABILITY,
    "semantic_loss_ignore_index": Rule(_is_int, "an integer"),
    "problem_type": _one_of(None, *PROBLEM_TYPES),
    "return_dict": _BOOL,
    "output_hidden_states": _BOOL,
}


LARGEST = 2**31 - 1

LIMITS = {"patch_size": "MAX_PATCH_SIZE", "atrous_rates": "MAX_DILATION"}
"""Fields that bound the memory of a call, whatever the weights are, and the limits they keep to."""


def check_fields(values: Mapping[str, Any], num_labels: int) -> None:
    """Check every field by its rule, then the fields against each other.

    Raises:
        ValueError: a value does not fit; the message names its field.
    """
    for field, rule in RULES.items():
        require(field, rule.accepts(values[field]), rule.expected, values[field])
    named = _are_names(values["architectures"])
    require("architectures", named, "a list of names of classes, or None", values["architectures"])
    for field in RULES:
        numbers = values[field] if isinstance(values[field], list | tuple) else [values[field]]
        largest = max([number for number in numbers if _is_int(number)], default=0)
        if field in LIMITS:
            limits.check(LIMITS[field], largest, f"MobileViTConfig.{field}")
        require(field, largest <= LARGEST, f"at most {LARGEST}", values[field])
    heads = values["num_attention_heads"]
    for size in values["hidden_sizes"]:
        require(
            "hidden_sizes",
            size % heads == 0,
            f"multiples of num_attention_heads={heads}",
            values["hidden_sizes"],
        )
    narrowest = min(values["hidden_sizes"])
    require(
        "mlp_ratio",
        narrowest * values["mlp_ratio"] >= 1,
        f"at least 1/{narrowest}, one unit in the narrowest MLP",
        values["mlp_ratio"],
    )
    if values["problem_type"] == "single_label_classification":
        require("problem_type", num_labels != 1, '"regression" or at least 2 labels', values["problem_type"])


def listed(value: Any) -> Any:
    """Sequences as new lists, as JSON gives them; anything else as it is, for the rules to judge."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    return value


def parse_dtype(value: Any) -> torch.dtype | None:
    """A dtype from a dtype or its name, with or without "torch."."""
    parsed = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    require("dtype", parsed is None or isinstance(parsed, torch.dtype), "a torch.dtype or its name", value)
    require("dtype", parsed is not None or value is None, "a torch.dtype or its name", value)
    return parsed


def parse_id2label(value: Any) -> dict[int, str]:
    """Names by class index, from a mapping whose keys may be strings."""
    ok = isinstance(value, Mapping) and all(isinstance(key, int) or str(key).isdecimal() for key in value)
    require("id2label", ok, "a mapping from class indices to names", value)
    limits.check("MAX_CLASSES", len(value), "MobileViTConfig.id2label")
    named = all(isinstance(name, str | int | float) for name in value.values())
    require("id2label", named, "names that are texts", value)
    return {_index(key, "id2label"): str(name) for key, name in value.items()}


def parse_label2id(value: Any) -> dict[str, int]:
    """Class indices by name, from a mapping whose values may be strings."""
    ok = isinstance(value, Mapping) and all(isinstance(i, int) or str(i).isdecimal() for i in value.values())
    require("label2id", ok, "a mapping from names to class indices", value)
    limits.check("MAX_CLASSES", len(value), "MobileViTConfig.label2id")
    return {str(name): _index(index, "label2id") for name, index in value.items()}


def _index(value: Any, field: str) -> int:
    text = value if isinstance(value, int) else str(value)
    require(field, isinstance(text, int) or len(text) < 20, "class indices", value)
    return int(text)


def default_id2label(num_labels: Any) -> dict[int, str]:
    """LABEL_0, LABEL_1, ... for classes without names."""
    require("num_labels", _is_int(num_labels) and num_labels >= 0, "an integer of at least 0", num_labels)
    limits.check("MAX_CLASSES", num_labels, "MobileViTConfig.num_labels")
    return {index: f"LABEL_{index}" for index in range(num_labels)}
