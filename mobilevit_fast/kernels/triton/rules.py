"""Limits of the Triton kernels, by operator. Like ``backend``, it does without Triton."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from mobilevit_fast.kernels.kernel import image_of
from mobilevit_fast.kernels.support import Support

MAX_SIDE, MAX_POSITIONS = 2**30 - 1, 2**31 - 1
"""Rows or columns of a padded image; rows of a batch, and elements of a weight: kernels count them all in 32 bits."""
MAX_FEATURES = 2048
"""Width of a token, whose accumulators an MLP program holds whole; some chips lack shared memory for wider ones."""
MAX_HEAD_DIM = 512
"""Channels of a head, whose queries a program holds whole."""


def _images(arguments: dict[str, Any], padding: Sequence[int] = (0, 0), patch: Sequence[int] = (1, 1)) -> str:
    """The reason why positions in these images do not fit 32 bits; nothing where they do."""
    x = image_of(arguments)
    batch, *size = (1, 1, 1) if x is None else (x.shape[0], *x.shape[2:])
    height, width = (-(-size[i] // patch[i]) * patch[i] for i in (0, 1))
    rows, columns = height + 2 * padding[0], width + 2 * padding[1]
    if max(rows, columns) > MAX_SIDE:
        return f"expected a padded image of fewer than 2^30 rows and columns, got one of {rows}x{columns}"
    if batch * height > MAX_POSITIONS:
        return f"expected fewer than 2^31 rows in a batch, got {batch} images of {height}x{width}"
    return ""


def _weights(arguments: dict[str, Any], *names: str, stacked: Sequence[str] = ()) -> str:
    """The reason why positions in one of these weights do not fit 32 bits; those ``stacked`` are read one at a time."""
    for name in (*names, *stacked):
        weight: Tensor = arguments[name]
        shape = tuple(weight.shape[1:] if name in stacked else weight.shape)
        if prod(shape) > MAX_POSITIONS:
            return f"expected {name.replace('_', ' ')} of fewer than 2^31 numbers, got {shape}"
    return ""


def _support(*reasons: str) -> Support:
    reason = next(filter(None, reasons), "")
    return Support(not reason, reason)


def conv2d_bias_act(arguments: dict[str, Any]) -> Support:
    """Sizes of image and weight; the answer is yes where there is no weight yet, here and in all rules."""
    if "weight" not in arguments:
        return Support(True)
    return _support(_images(arguments, arguments["padding"]), _weights(arguments, "weight"))


def inverted_residual(arguments: dict[str, Any]) -> Support:
    """Sizes of weights, and of the image padded by half a depthwise window."""
    if "depthwise_weight" not in arguments:
        return Support(True)
    window, dilation = arguments["depthwise_weight"].shape[2:], arguments["dilation"]
    padding = [(window[i] - 1) // 2 * dilation[i] for i in (0, 1)]
    weights = _weights(arguments, "expand_weight", "depthwise_weight", "project_weight")
    return _support(_images(arguments, padding), weights)


def aspp(arguments: dict[str, Any]) -> Support:
    """Sizes of weights, and of the image padded by the largest rate."""
    if "pointwise_weight" not in arguments:
        return Support(True)
    padding = [max(arguments["rates"])] * 2
    weights = _weights(arguments, "pointwise_weight", "pool_weight", "project_weight", stacked=("atrous_weight",))
    return _support(_images(arguments, padding), weights)


def classifier_head(arguments: dict[str, Any]) -> Support:
    """Size of the expansion's weight; torch multiplies by that of the classes."""
    return _support(_weights(arguments, "expand_weight") if "expand_weight" in arguments else "")


def mobilevit_transformer(arguments: dict[str, Any]) -> Support:
    """Width of tokens and heads, sizes of weights, and of the image resized to whole patches."""
    if "in_weight" not in arguments:
        return Support(True)
    features = arguments["in_weight"].shape[0]
    head_dim, wide = features // arguments["num_heads"], ""
    if features > MAX_FEATURES:
        wide = f"expected at most {MAX_FEATURES} hidden channels, got {features}"
    elif head_dim > MAX_HEAD_DIM:
        wide = f"expected heads of at most {MAX_HEAD_DIM} channels, got {head_dim}"
    layers = ("qkv_weight", "proj_weight", "fc1_weight", "fc2_weight")
    weights = _weights(arguments, "in_weight", "out_weight", stacked=layers)
    return _support(wide, weights, _images(arguments, patch=arguments["patch_size"]))
