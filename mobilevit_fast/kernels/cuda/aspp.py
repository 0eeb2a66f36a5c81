"""Parameters of atrous spatial pyramid pooling in the order of its kernels (``csrc/cuda/aspp/aspp.cpp``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mobilevit_fast.kernels.cuda import conv2d_bias_act
from mobilevit_fast.kernels.cuda.packing import joined, scale_and_bias
from mobilevit_fast.kernels.cuda.rules import all_of, has_sm90, multiples_of_eight, reaches
from mobilevit_fast.kernels.cuda.sm90 import atrous
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.kernels.weights import AsppWeights, ConvWeights, part

MAX_NUMBERS = 8192
"""Channels, and features of a branch: both of an image's mean lie in shared memory (``kAsppVector``)."""


def pack(w: AsppWeights) -> Tensor:
    """Convolutions as their own kernel takes them; the branch of the mean in rows as they come.

    Behind them, for compute capability 9.0, the convolutions' weights once more, as its own kernel takes them.
    """
    own = len(w.project_weight[0]) - len(w.pool_weight)  # (R + 1) * K features that the projection sees pixel by pixel
    branches = [part(w, "pointwise"), *(part(w, "atrous", i) for i in range(len(w.atrous_weight)))]
    projected = ConvWeights(w.project_weight[:, :own], w.project_scale, None)
    parts = [conv2d_bias_act.pack_everywhere(conv) for conv in (*branches, projected)]
    for conv in (part(w, "pool"), part(w, "project")._replace(weight=w.project_weight[:, own:])):
        parts += [conv.weight.flatten(1), *scale_and_bias(conv)]  # (K, C) or (O, K)
    if has_sm90(w.project_weight.device) and atrous.has(w.atrous_weight, w.project_weight):
        parts += [atrous.pack(conv.weight) for conv in (*branches, projected)]
    return joined(parts)


def takes(arguments: dict[str, Any]) -> Support:
    """Whether the kernels take these arguments, of which the image may be missing."""
    weight = arguments.get("pointwise_weight")
    if weight is None:
        return Support(True)
    features, channels = weight.shape[:2]
    if max(features, channels) > MAX_NUMBERS:
        got = f"{channels} and {features}"
        return Support(False, f"expected at most {MAX_NUMBERS} channels, and features of a branch, got {got}")
    windows = (reaches(arguments, (3, 3), (1, 1), (rate, rate), (rate, rate)) for rate in arguments["rates"])
    return all_of(
        multiples_of_eight(input_channels=channels), multiples_of_eight(features_of_a_branch=features), *windows
    )
