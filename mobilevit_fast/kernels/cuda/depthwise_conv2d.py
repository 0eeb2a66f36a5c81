"""Cases and packed weights of the depthwise CUDA kernel (``csrc/cuda/depthwise_conv2d/depthwise_conv2d.h``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import joined, scale_and_bias
from mobilevit_fast.kernels.cuda.rules import (
    SHARED_BYTES,
    all_of,
    countable_sides,
    multiples_of_eight,
    same_in_both_directions,
)
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.kernels.weights import DepthwiseWeights

_TILE, _CHANNELS = 8, 64  # of the smallest block


def pack(w: DepthwiseWeights) -> Tensor:
    """Windows by tap, scales and biases in float32."""
    taps = w.weight.flatten(1).t().float()  # (kh·kw, C)
    return joined([taps, *scale_and_bias(w)])


def takes(arguments: dict[str, Any]) -> Support:
    """Whether the kernel takes these arguments, of which the image may be missing."""
    weight = arguments.get("weight")
    if weight is None:
        return Support(True)
    channels, _, *window = weight.shape
    if window not in ([3, 3], [5, 5], [7, 7]):
        return Support(False, f"expected a window of 3x3, 5x5 or 7x7, got {window[0]}x{window[1]}")
    same = same_in_both_directions(arguments, "stride", "padding", "dilation")
    geometry = arguments["stride"], arguments["padding"], arguments["dilation"]
    (stride, _), _, (dilation, _) = geometry
    if stride > 2:
        return Support(False, f"expected stride 1 or 2, got {stride}")
    extent = (_TILE - 1) * stride + (window[0] - 1) * dilation + 1
    if extent**2 * _CHANNELS * 2 > SHARED_BYTES:
        return Support(
            False, f"expected a window that shared memory holds, got one that spans {extent}x{extent} pixels"
        )
    return all_of(same, multiples_of_eight(channels=channels), countable_sides(arguments, window, *geometry))
