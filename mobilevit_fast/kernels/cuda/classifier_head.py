"""Cases and packed weights of the classifier head's CUDA kernel (``csrc/cuda/classifier_head/classifier_head.h``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mobilevit_fast.kernels.cuda import conv2d_bias_act
from mobilevit_fast.kernels.cuda.packing import joined
from mobilevit_fast.kernels.cuda.rules import all_of, countable, has_sm90, image_of, multiples_of_eight
from mobilevit_fast.kernels.cuda.sm90 import small_head
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.kernels.weights import HeadWeights, part

MAX_CHANNELS = 2560
"""Largest number of input channels: 16 pixels of so many fit into the shared memory of every GPU."""
_ADDED_PIXELS = 1 << 20
"""Counted on top of those of a batch: a tile's, and as many as a chip has processors."""


def pack(w: HeadWeights) -> Tensor:
    """Weights of the classes as torch's matrix product takes them, and those of the expansion.

    Behind them, for compute capability 9.0, all weights for few images.
    """
    bias = w.weight.new_zeros(len(w.weight)) if w.bias is None else w.bias.to(w.weight.dtype)
    parts = [w.weight, bias, conv2d_bias_act.pack_everywhere(part(w, "expand"))]
    if has_sm90(w.expand_weight.device) and small_head.has(w):
        parts += small_head.pack(w)
    return joined(parts)


def takes(arguments: dict[str, Any]) -> Support:
    """Whether the kernel takes these arguments, of which the image may be missing."""
    weight = arguments.get("expand_weight")
    if weight is None:
        return Support(True)
    if weight.shape[1] > MAX_CHANNELS:
        return Support(False, f"expected at most {MAX_CHANNELS} input channels, got {weight.shape[1]}")
    x = image_of(arguments)
    pixels = 0 if x is None else x.shape[0] * x.shape[2] * x.shape[3] + _ADDED_PIXELS
    return all_of(multiples_of_eight(input_channels=weight.shape[1]), countable(pixels=pixels))
