"""Rules for what the CUDA kernels take that they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch

from mobilevit_fast.kernels.kernel import image_of
from mobilevit_fast.kernels.support import Support

SHARED_BYTES = 99 << 10
"""Shared memory that a block may have on every GPU from compute capability 8.0 on."""


MAX_REACH = 1 << 15
"""Rows and columns that a dense convolution may look at: kernels keep them in 16 bits."""
MAX_POSITIONS = (1 << 31) - (1 << 16) - 1
"""Pixels of a batch, or rows, columns and images: kernels count them in 32 bits, rounded up to a tile."""
MAX_STEP = (1 << 15) - 1
"""Stride, padding or dilation that is one number for both directions."""
TILE_PIXELS = 64
"""Largest number of pixels of a tile in one row."""


SM90_DEVICE_TYPES: list[str] = []
"""Devices that weights are packed on for the kernels of ``sm90``, besides such a GPU. An emulator adds the CPU."""


_for_every_chip = False


@contextmanager
def packed_for_every_chip() -> Iterator[None]:
    """Weights are packed without those of ``csrc/cuda/sm90``: the kernels for every chip run, to be compared."""
    global _for_every_chip
    before, _for_every_chip = _for_every_chip, True
    try:
        yield
    finally:
        _for_every_chip = before


def has_sm90(device: torch.device) -> bool:
    """Whether weights on this device are packed for the kernels of ``csrc/cuda/sm90`` too."""
    if _for_every_chip:
        return False
    if device.type == "cuda" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device)
        return (properties.major, properties.minor) == (9, 0)
    return device.type in SM90_DEVICE_TYPES


def countable(**sizes: int) -> Support:
    """Numbers of pixels, rows, columns or images, by what they are of."""
    for name, size in sizes.items():
        if size > MAX_POSITIONS:
            return Support(False, f"expected at most {MAX_POSITIONS} {name}, got {size}")
    return Support(True)


def countable_sides(
    arguments: dict[str, Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Support:
    """Images of a depthwise convolution, and rows and columns of one and of its result, as :func:`countable`."""
    x = image_of(arguments)
    if x is None:
        return Support(True)
    size = list(x.shape[2:])
    rows, columns = (max(size[i], convolved(size, i, kernel, stride, padding, dilation)) for i in (0, 1))
    return countable(images=x.shape[0], rows=rows, columns=columns)


def convolved(
    size: Sequence[int],
    i: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> int:
    """Rows (``i`` is 0) or columns (1) of a convolution's result."""
    return (size[i] + 2 * padding[i] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1


def same_in_both_directions(arguments: dict[str, Any], *names: str) -> Support:
    """Strides, paddings and dilations by name, where they are given."""
    for name in names:
        value = arguments.get(name)
        if value is not None and value[0] != value[1]:
            return Support(False, f"expected the same {name} in both directions, got {list(value)}")
        if value is not None and value[0] > MAX_STEP:
            return Support(False, f"expected {name} of less than 2^15, got {value[0]}")
    return Support(True)


def reaches(
    arguments: dict[str, Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Support:
    """Whether a dense convolution's rows and columns are numbers of 16 bits (``check_conv2d_reach``), pixels of 32."""
    x = image_of(arguments)
    size = (0, 0) if x is None else tuple(x.shape[2:])
    for i in range(2):
        reach = size[i] + 2 * padding[i] + (kernel[i] - 1) * dilation[i] + TILE_PIXELS * stride[i]
        if max(reach, dilation[i]) >= MAX_REACH:
            image = "an image" if x is None else f"{size[0]}x{size[1]}"
            window = f"a window of {kernel[0]}x{kernel[1]}, stride {list(stride)}, padding {list(padding)}"
            expected = "an image of fewer than 2^15 rows and columns, window, padding and a tile included"
            return Support(False, f"expected {expected}, got {image} with {window}, dilation {list(dilation)}")
    if x is None:
        return Support(True)
    results = prod(convolved(size, i, kernel, stride, padding, dilation) for i in (0, 1))
    return countable(pixels=x.shape[0] * max(prod(size), results))


def multiples_of_eight(**sizes: int) -> Support:
    """Numbers of channels, by what they are of."""
    for name, size in sizes.items():
        if size % 8 != 0:
            return Support(False, f"expected {name.replace('_', ' ')} that are a multiple of 8, got {size}")
    return Support(True)


def all_of(*supports: Support) -> Support:
    """The first that says no, or a yes."""
    return next((support for support in supports if not support.ok), Support(True))
