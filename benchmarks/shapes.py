"""The shapes that MobileViT's regions have at 256 px, by size of model."""

from typing import NamedTuple

from mobilevit_fast.config import PRESETS, MobileViTConfig
from mobilevit_fast.models.layers import make_divisible


class InvertedResidualShape(NamedTuple):
    """An inverted residual over (batch, inputs, size, size)."""

    inputs: int
    expanded: int
    outputs: int
    size: int
    stride: int


def inverted_residuals(preset: str, image_size: int = 256) -> list[InvertedResidualShape]:
    """The different inverted residuals of a preset, in the order of the network (arXiv 2110.02178, table 4)."""
    config = MobileViTConfig.preset(preset)
    channels, size = config.neck_hidden_sizes, image_size // 2
    steps = [(0, 1, 1), (1, 2, 2), (2, 2, 1), (2, 3, 2), (3, 4, 2), (4, 5, 2)]  # from, to, stride
    shapes = []
    for source, target, stride in steps:
        inputs, outputs = channels[source], channels[target]
        expanded = make_divisible(round(inputs * config.expand_ratio))
        shapes.append(InvertedResidualShape(inputs, expanded, outputs, size, stride))
        size //= stride
    return shapes


ALL_INVERTED_RESIDUALS = [(preset, shape) for preset in PRESETS for shape in inverted_residuals(preset)]
"""Every inverted residual of the three sizes."""
