"""Parameters of the dense convolution in the order of its kernels (``csrc/cuda/conv2d_bias_act/conv2d_sums.h``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import fragments, joined, padded, scale_and_bias
from mobilevit_fast.kernels.cuda.rules import has_sm90, reaches
from mobilevit_fast.kernels.cuda.sm90 import atrous, conv3x3, small_conv, stem
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.kernels.weights import ConvWeights

STEM_NUMBERS = 64
"""Windows of at most so many elements, taps by channels, are one sum where channels are no multiple of eight."""


STEM_BYTES = 49 << 10
"""Shared memory for what 32 of them beside each other see."""


def _neighbours(weight: Tensor) -> Tensor:
    """Output channels (O, ...), rounded up to 16, so that of a product's 16 a lane has four neighbours."""
    outputs = weight.shape[0]
    filled = torch.cat((weight, weight.new_zeros(padded(outputs, 16) - outputs, *weight.shape[1:])))
    return filled.unflatten(0, (-1, 4, 2, 2)).transpose(1, 2).flatten(0, 3)  # (O / 16, member, tile, half, ...)


def _units(weight: Tensor) -> Tensor:
    """A window (O, C, kh, kw) over one input as (C / 16, kh * kw, O / 16, 32, 8)."""
    channels = weight.shape[1]
    filled = F.pad(weight.flatten(2), (0, 0, 0, padded(channels, 16) - channels))  # (O, C, taps)
    columns = _neighbours(filled.unflatten(1, (-1, 16)).transpose(2, 3).flatten(1))  # (O, C / 16 * taps * 16)
    return fragments(columns).unflatten(0, (-1, filled.shape[2]))


def pack(w: ConvWeights, dilation: Sequence[int]) -> Tensor:
    """The operator's weights: those of every chip's kernels, and behind them those of this one's own."""
    packed = [pack_everywhere(w)]
    if has_sm90(w.weight.device):
        if conv3x3.has(w.weight):
            packed.extend(conv3x3.pack(w.weight))
        elif stem.has(w.weight):
            packed.extend(stem.pack(w))
        packed.extend(map(atrous.pack, atrous.slices(w.weight, dilation)))
        if small_conv.has(w.weight):
            packed.append(small_conv.pack(w.weight))
    return joined(packed)


def pack_everywhere(w: ConvWeights) -> Tensor:
    """Two inputs are packed like one, since the first is whole units of 16 channels."""
    if is_stem(w.weight):
        numbers = w.weight.permute(0, 2, 3, 1).flatten(1)  # (O, kh * kw * C)
        packed = fragments(_neighbours(numbers))  # (numbers / 16, O / 16, 32, 8)
    else:
        packed = _units(w.weight)  # (units, taps, O / 16, 32, 8)
    return joined([packed, *scale_and_bias(w, 16)])


def is_stem(weight: Tensor) -> bool:
    """Whether the kernel for few channels takes it: not a multiple of eight, and a window of few elements."""
    channels, *window = weight.shape[1:]
    return channels % 8 != 0 and channels * window[0] * window[1] <= STEM_NUMBERS


def takes(arguments: dict[str, Any]) -> Support:
    """Whether the kernels take these arguments, of which the images may be missing; a second one may then be there."""
    weight = arguments.get("weight")
    if weight is None:
        return Support(True)
    channels, *window = weight.shape[1:]
    reach = reaches(arguments, window, *(arguments[name] for name in ("stride", "padding", "dilation")))
    if not reach.ok:
        return reach
    x = arguments.get("x")
    if x is not None and x.dtype == torch.uint8 and not is_stem(weight):
        got = f"{channels} channels and {window[0]}x{window[1]}"
        return Support(False, f"expected few channels and a small window where the image is torch.uint8, got {got}")
    second = arguments.get("x2", ...)
    if second is None:
        if channels % 8 == 0:
            return Support(True)
        if is_stem(weight):
            (_, stride), (down, across) = arguments["stride"], arguments["dilation"]
            rows, columns = (window[0] - 1) * down + 1, 31 * stride + (window[1] - 1) * across + 1
            if 2 * rows * columns * channels <= STEM_BYTES:
                return Support(True)
            return Support(False, f"expected a window that shared memory holds, got one of dilation [{down}, {across}]")
        got = f"{channels} channels and {window[0]}x{window[1]}"
        few = f"a window of at most {STEM_NUMBERS} numbers"
        return Support(False, f"expected input channels that are a multiple of 8, or {few}, got {got}")
    first = channels // 2 if second is ... else channels - second.shape[1]  # not seen: as many as of the other
    if first % 16 == 0 and channels % 8 == 0:
        return Support(True)
    expected = "two inputs of which the first has a multiple of 16 channels, and both a multiple of 8"
    return Support(False, f"expected {expected}, got {first} and {channels - first}")
