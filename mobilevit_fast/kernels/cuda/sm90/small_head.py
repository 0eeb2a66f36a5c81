"""Parameters of the classifier head in the order of the kernel for few images, ``small_head_sm90_kernel.h``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import affine, padded, pair_tiles

BLOCKS = {(160, 640): 16, (96, 384): 16, (80, 320): 8}
"""Of an image, by channels and expanded channels (``HeadShapes``)."""
MOST_CLASSES = 1024


def has(expand_weight: Tensor, weight: Tensor) -> bool:
    """Whether the kernel computes with such weights."""
    expanded, channels = expand_weight.shape[:2]
    known = (channels, expanded) in BLOCKS and 0 < weight.shape[0] <= MOST_CLASSES
    return known and expand_weight.dtype == torch.float16


def pack(
    expand_weight: Tensor,
    expand_scale: Tensor | None,
    expand_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> list[Tensor]:
    """Fragments of the expansion, its scales and biases; rows of the linear layer as they come, and its biases.

    Classes are rounded up, so that blocks have as many of them.
    """
    expanded, channels = expand_weight.shape[:2]
    classes = weight.shape[0]
    rows = padded(classes, BLOCKS[channels, expanded])
    return [
        pair_tiles(expand_weight.flatten(1)),  # (E / 8, C / 32, 32, 8)
        affine(expand_scale, expand_weight, 1, 1.0),
        affine(expand_bias, expand_weight, 1, 0.0),
        F.pad(weight, (0, 0, 0, rows - classes)),
        affine(bias, weight, rows, 0.0),
    ]
