"""Cases and packed weights of the CUDA kernels of inverted residual and depthwise separable convolution.

The order of their parameters is that of ``csrc/cuda/inverted_residual/inverted_residual.cpp``.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda import strips
from mobilevit_fast.kernels.cuda.packing import fragments, joined, padded, scale_and_bias
from mobilevit_fast.kernels.cuda.rules import (
    SHARED_BYTES,
    all_of,
    countable_sides,
    has_sm90,
    multiples_of_eight,
    same_in_both_directions,
)
from mobilevit_fast.kernels.cuda.sm90 import rows, small_residual
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.kernels.weights import ConvWeights, ResidualWeights, SeparableWeights, part

_CHUNK = 32  # expanded channels at a time
_TILE = (4, 8)  # output pixels of the smallest block


def _taps(weight: Tensor) -> Tensor:
    """Windows of a depthwise convolution (C, 1, 3, 3) as (C, 24): 12 words, a tap in each of the first nine.

    It fills the half of its word that its channel has in a pair of channels.
    """
    channels = weight.shape[0]
    halves = weight.new_zeros(channels, 12, 2)
    halves[0::2, :9, 0] = weight[0::2].flatten(1)
    halves[1::2, :9, 1] = weight[1::2].flatten(1)
    return halves.flatten(1)


def _separable_parts(depthwise: ConvWeights, project: ConvWeights) -> list[Tensor]:
    channels = depthwise.weight.shape[0]
    more = padded(channels, _CHUNK) - channels
    return [
        F.pad(_taps(depthwise.weight), (0, 0, 0, more)),
        *scale_and_bias(depthwise, _CHUNK),
        fragments(F.pad(project.weight.flatten(1), (0, more))),  # (C / 16, O / 16, 32, 8)
        *scale_and_bias(project, 16),
    ]


def pack_separable(w: SeparableWeights) -> Tensor:
    """Windows, scales and biases; the projection in fragments, its scales and biases."""
    return joined(_separable_parts(part(w, "depthwise"), part(w, "pointwise")))


def _sm90_parts(w: ResidualWeights) -> list[Tensor]:
    """Weights of the kernels for compute capability 9.0 behind the others, in the order in which C++ takes them."""
    if not has_sm90(w.expand_weight.device):
        return []
    parts = rows.pack(w) if rows.takes(w) else []
    if small_residual.has(w):
        parts.append(small_residual.pack(w))
    return parts


def pack(w: ResidualWeights) -> Tensor:
    """The expansion in chunks of channels, the separable convolution behind it, and what other kernels take."""
    expand = fragments(w.expand_weight.flatten(1), _CHUNK)  # (C / 16, E / 16, 32, 8)
    chunks = expand.unflatten(1, (-1, 2)).transpose(0, 1)  # (E / 32, C / 16, 2, 32, 8)
    parts = [chunks, *scale_and_bias(part(w, "expand"), _CHUNK)]
    parts += _separable_parts(part(w, "depthwise"), part(w, "project"))
    return joined([*parts, *(strips.pack(w) if strips.takes(w) else []), *_sm90_parts(w)])


def shared_bytes(channels: int, stride: int, dilation: int) -> int:
    """Shared memory of the smallest block: input (none where ``channels`` is 0) and expanded pixels, flags."""
    height, width = ((size - 1) * stride + 2 * dilation + 1 for size in _TILE)
    pixels = padded(height * width, 16)
    inputs = pixels * (padded(channels, 16) + 8) if channels else 0
    return sum(padded(size, 128) for size in (pixels, 2 * inputs, 2 * pixels * (_CHUNK + 8)))


def _takes_window(arguments: dict[str, Any], inputs: int) -> Support:
    depthwise = arguments["depthwise_weight"]
    if depthwise.shape[2:] != (3, 3):
        height, width = depthwise.shape[2:]
        return Support(False, f"expected a depthwise window of 3x3, got {height}x{width}")
    same = same_in_both_directions(arguments, "stride", "padding", "dilation")
    (stride, _), (dilation, _) = arguments["stride"], arguments["dilation"]
    if stride > 2:
        return Support(False, f"expected stride 1 or 2, got {stride}")
    if same.ok and shared_bytes(inputs, stride, dilation) > SHARED_BYTES:
        reason = (
            f"expected an input that shared memory holds, got {inputs} channels, stride {stride}, dilation {dilation}"
        )
        return Support(False, reason)
    geometry = arguments["stride"], arguments.get("padding", arguments["dilation"]), arguments["dilation"]
    return all_of(same, countable_sides(arguments, (3, 3), *geometry))


def takes(arguments: dict[str, Any]) -> Support:
    """Whether the kernels take these arguments of ``inverted_residual``, of which the image may be missing."""
    if "expand_weight" not in arguments:
        return Support(True)
    expanded, inputs = arguments["expand_weight"].shape[:2]
    outputs = arguments["project_weight"].shape[0]
    channels = multiples_of_eight(input_channels=inputs, expanded_channels=expanded, output_channels=outputs)
    return all_of(channels, _takes_window(arguments, inputs))


def takes_separable(arguments: dict[str, Any]) -> Support:
    """The same for ``depthwise_separable_conv2d``."""
    if "pointwise_weight" not in arguments:
        return Support(True)
    outputs, inputs = arguments["pointwise_weight"].shape[:2]
    return all_of(multiples_of_eight(input_channels=inputs, output_channels=outputs), _takes_window(arguments, 0))
