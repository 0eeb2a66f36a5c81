"""Classifier head in plain PyTorch."""

import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.kernels.weights import HeadWeights, part


def classifier_head(
    x: Tensor,
    w: HeadWeights,
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.classifier_head`."""
    pointwise = ([1, 1], [0, 0], [1, 1], activation)
    features = conv2d_bias_act(x, None, part(w, "expand"), *pointwise)  # (N, E, H, W)
    pooled = features.mean(dim=(2, 3))  # (N, E)
    return F.linear(pooled, w.weight, None if w.bias is None else w.bias.to(x.dtype))  # (N, K)
