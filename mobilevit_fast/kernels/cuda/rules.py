"""What the CUDA kernels have in common in what they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mobilevit_fast.support import Support

SHARED_BYTES = 99 << 10
"""Shared memory that a block may have on every GPU from compute capability 8.0 on."""


TILE_PIXELS = 64
"""Of a tile in a row, at most."""


def same_in_both_directions(arguments: dict[str, Any], *names: str) -> Support:
    """Strides, paddings and dilations by name, where they are given."""
    for name in names:
        value = arguments.get(name)
        if value is not None and value[0] != value[1]:
            return Support(False, f"expected the same {name} in both directions, got {list(value)}")
    return Support(True)


def reaches(
    arguments: dict[str, Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Support:
    """Whether rows and columns of a dense convolution are numbers of 16 bits (``check_conv2d_reach``).

    The image counts where it is given and its size is a number: of a graph for any size nothing may depend on it.
    """
    x = arguments.get("x")
    for i in range(2):
        size = 0 if x is None or not isinstance(x.shape[2 + i], int) else x.shape[2 + i]
        reach = size + 2 * padding[i] + (kernel[i] - 1) * dilation[i] + TILE_PIXELS * stride[i]
        if reach >= 1 << 15:
            expected = "an image of fewer than 2^15 rows and columns, window and padding included"
            return Support(False, f"expected {expected}, got {reach}")
    return Support(True)


def multiples_of_eight(**sizes: int) -> Support:
    """Numbers of channels, by what they are of."""
    for name, size in sizes.items():
        if size % 8 != 0:
            return Support(False, f"expected {name.replace('_', ' ')} that are a multiple of 8, got {size}")
    return Support(True)


def all_of(*supports: Support) -> Support:
    """The first that says no, or a yes."""
    return next((support for support in supports if not support.ok), Support(True))
