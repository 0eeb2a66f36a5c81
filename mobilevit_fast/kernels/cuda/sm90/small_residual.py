"""Parameters of inverted residuals in the order of the kernel for few images, ``small_residual_shapes_sm90.h``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import padded, pair_tiles, scale_and_bias, slices_joined
from mobilevit_fast.kernels.weights import ResidualWeights, part

SLICES = {
    (16, 64, 32): 1,
    (32, 128, 64): 1,
    (64, 256, 64): 1,
    (64, 256, 96): 1,
    (96, 384, 128): 4,
    (128, 512, 160): 8,
    (32, 128, 48): 1,
    (48, 192, 48): 1,
    (48, 192, 64): 1,
    (64, 256, 80): 4,
    (80, 320, 96): 8,
    (16, 32, 16): 1,
    (16, 32, 24): 1,
    (24, 48, 24): 1,
    (24, 48, 48): 1,
    (48, 96, 64): 1,
    (64, 128, 80): 1,
}
"""Blocks that share out the expanded channels, by channels, expanded channels and outputs (``ResidualShapes``)."""


def has(w: ResidualWeights) -> bool:
    """Whether the kernel computes with such weights."""
    return w.key in SLICES and w.depthwise_weight.shape[2:] == (3, 3)


def pack(w: ResidualWeights) -> Tensor:
    """Packed weights, slice by slice: expansion, depthwise convolution, projection, each with scales and biases.

    A slice is some of the expanded channels, and some of the outputs.
    """
    slices = SLICES[w.key]
    outputs = w.project_weight.shape[0]
    rows = padded(-(-outputs // 8), slices) * 8  # of the projection, so that slices are whole tiles
    project = F.pad(w.project_weight.flatten(1), (0, 0, 0, rows - outputs))
    parts = [
        pair_tiles(w.expand_weight.flatten(1)),  # (E / 8, C / 32, 32, 8)
        *scale_and_bias(part(w, "expand"), 8),
        w.depthwise_weight.flatten(1).unflatten(0, (slices, -1)).transpose(1, 2),  # (slices, 9, E / slices)
        *scale_and_bias(part(w, "depthwise"), 8),
    ]
    projection = [pair_tiles(project), *scale_and_bias(part(w, "project"), rows)]  # the first (rows / 8, E / 32, 32, 8)
    return torch.cat([slices_joined(parts, slices), slices_joined(projection, slices)], 1)
