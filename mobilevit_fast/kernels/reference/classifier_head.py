"""Classifier head in plain PyTorch."""

import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act


def classifier_head(
    x: Tensor,
    expand_weight: Tensor,
    expand_scale: Tensor | None,
    expand_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.classifier_head`."""
    pointwise = ([1, 1], [0, 0], [1, 1], activation)
    features = conv2d_bias_act(x, None, expand_weight, expand_scale, expand_bias, *pointwise)  # (N, E, H, W)
    pooled = features.mean(dim=(2, 3))  # (N, E)
    return F.linear(pooled, weight, None if bias is None else bias.to(x.dtype))  # (N, K)
