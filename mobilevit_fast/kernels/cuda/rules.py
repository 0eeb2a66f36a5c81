"""What the CUDA kernels have in common in what they take."""

from __future__ import annotations

from typing import Any

from mobilevit_fast.support import Support

SHARED_BYTES = 99 << 10
"""Shared memory that a block may have on every GPU from compute capability 8.0 on."""


def same_in_both_directions(arguments: dict[str, Any], *names: str) -> Support:
    """Strides, paddings and dilations by name, where they are given."""
    for name in names:
        value = arguments.get(name)
        if value is not None and value[0] != value[1]:
            return Support(False, f"expected the same {name} in both directions, got {list(value)}")
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
