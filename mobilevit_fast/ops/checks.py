"""Checks that the operators share; each failure is one sentence that says what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from mobilevit_fast.kernels.epilogue import ACTIVATIONS

MAX_PIXELS = 2**61
"""More than any stride, padding, dilation or side of a patch: positions in a padded image are then less than 2^63."""


def refuse(op: str, expected: str, got: object, x: Tensor | None = None) -> NoReturn:
    """Raise the ValueError of the package: what was expected, what came, and the input's shape."""
    where = "" if x is None else f" (x.shape={tuple(x.shape)})"
    raise ValueError(f"mobilevit_fast.{op}: expected {expected}, got {got}{where}")


def pair(op: str, name: str, value: int | Sequence[int]) -> list[int]:
    """One whole number for both directions, or two (vertical, horizontal)."""
    if isinstance(value, int):
        return [value, value]
    if isinstance(value, Sequence) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return list(value)
    refuse(op, f"{name} to be a whole number or a pair of them", repr(value))


def pairs(op: str, **values: int | Sequence[int]) -> list[list[int]]:
    """Several such values by name, in the order given."""
    return [pair(op, name, value) for name, value in values.items()]


def check_geometry(op: str, x: Tensor, **values: Sequence[int]) -> None:
    """Stride, dilation and patches of at least 1, padding of at least 0, all below 2^61, in both directions."""
    for name, pair in values.items():
        least = 0 if name == "padding" else 1
        if len(pair) != 2 or min(pair) < least:
            refuse(op, f"{name} of at least {least} in both directions", list(pair), x)
        if max(pair) >= MAX_PIXELS:
            refuse(op, f"{name} of less than 2^61 in both directions", list(pair), x)


def check_image(op: str, x: Tensor, channels: int, name: str = "input", *, bytes_too: bool = False) -> None:
    """A floating point image batch (N, C, H, W) with C = ``channels``; with ``bytes_too`` also of torch.uint8."""
    if x.dim() != 4:
        refuse(op, f"{name} of shape (batch, channels, height, width)", f"{x.dim()} dimensions", x)
    if not x.dtype.is_floating_point and not (bytes_too and x.dtype == torch.uint8):
        refuse(op, f"{name} of a floating point type", x.dtype, x)
    if x.shape[1] != channels:
        refuse(op, f"{name} of {channels} channels", x.shape[1], x)


def check_pixels(op: str, x: Tensor) -> None:
    """Images that are there to be averaged or attended to; how many of them does not matter."""
    if 0 in x.shape[2:]:
        refuse(op, "an image of at least one pixel", "none", x)


def check_parameter(
    op: str, x: Tensor, name: str, parameter: Tensor | None, shape: Sequence[int], *, float32: bool = False
) -> None:
    """A parameter of this shape, on ``x``'s device, of ``x``'s type (or float32 where that is allowed); None passes.

    Where the input is a uint8 image, ``x`` is the first weight.
    """
    if parameter is None:
        return
    if tuple(parameter.shape) != tuple(shape):
        refuse(op, f"{name} of shape {tuple(shape)}", tuple(parameter.shape), x)
    if parameter.dtype != x.dtype and not (float32 and parameter.dtype == torch.float32):
        refuse(op, f"{name} of type {x.dtype}, like the input", parameter.dtype, x)
    if parameter.device != x.device:
        refuse(op, f"{name} on {x.device}, like the input", parameter.device, x)


def convolved_size(
    op: str,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """Height and width of a convolution's result, after checking its geometry."""
    check_geometry(op, x, stride=stride, padding=padding, dilation=dilation)
    size = [(x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    if size[0] < 1 or size[1] < 1 or x.shape[2] < 1 or x.shape[3] < 1:
        refuse(
            op,
            f"an input that holds the {kernel_size[0]}x{kernel_size[1]} window at least once",
            f"a result of {size[0]}x{size[1]}",
            x,
        )
    return size[0], size[1]


def check_stored(op: str, names: Sequence[str], arguments: Sequence[object]) -> None:
    """Tensors whose memory is there: a storage can be freed behind a tensor (``untyped_storage().resize_(0)``)."""
    for name, tensor in zip(names, arguments, strict=True):
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.numel() > 0:
            last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
            needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
            there = tensor.untyped_storage().nbytes()
            if there < needed:
                expected = f"{name} with memory for its shape {tuple(tensor.shape)}"
                refuse(op, expected, f"one whose storage was resized to {there} bytes")


def check_activation(op: str, name: str, value: str) -> None:
    """An activation that the operators know."""
    if value not in ACTIVATIONS:
        refuse(op, f"{name} among {', '.join(sorted(ACTIVATIONS))}", repr(value))
