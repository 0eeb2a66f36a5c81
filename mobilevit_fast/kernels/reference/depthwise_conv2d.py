"""Depthwise convolution in plain PyTorch."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.epilogue import epilogue


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.depthwise_conv2d`."""
    y = F.conv2d(x, weight, None, stride, padding, dilation, groups=x.shape[1])  # (N, C, Ho, Wo)
    return epilogue(y, scale, bias, activation)
