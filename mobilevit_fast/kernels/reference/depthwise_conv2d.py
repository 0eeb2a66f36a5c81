"""Depthwise convolution in plain PyTorch."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.activations import ACTIVATIONS


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.depthwise_conv2d`."""
    bias = None if bias is None else bias.to(x.dtype)
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])  # (N, C, Ho, Wo)
    return ACTIVATIONS[activation](y)
