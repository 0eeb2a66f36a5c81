"""Parameters of the classifier head in the order of the kernel for few images, ``small_head_sm90_kernel.h``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import affine, padded, pair_tiles, scale_and_bias
from mobilevit_fast.kernels.weights import HeadWeights, part

BLOCKS = {(160, 640): 16, (96, 384): 16, (80, 320): 8}
"""Thread blocks of an image, by channels and expanded channels (``HeadShapes``)."""
MAX_CLASSES = 1024


def has(w: HeadWeights) -> bool:
    """Whether the kernel computes with such weights."""
    expanded, channels = w.expand_weight.shape[:2]
    return (channels, expanded) in BLOCKS and 0 < w.weight.shape[0] <= MAX_CLASSES


def pack(w: HeadWeights) -> list[Tensor]:
    """Fragments of the expansion, its scales and biases; rows of the linear layer as they come, and its biases.

    Classes are rounded up, so that blocks have as many of them.
    """
    expanded, channels = w.expand_weight.shape[:2]
    classes = w.weight.shape[0]
    rows = padded(classes, BLOCKS[channels, expanded])
    return [
        pair_tiles(w.expand_weight.flatten(1)),  # (E / 8, C / 32, 32, 8)
        *scale_and_bias(part(w, "expand")),
        F.pad(w.weight, (0, 0, 0, rows - classes)),
        affine(w.bias, w.weight, rows, 0.0),
    ]
