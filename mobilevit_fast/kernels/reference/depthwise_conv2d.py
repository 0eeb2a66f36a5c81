"""Depthwise convolution in plain PyTorch."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.epilogue import epilogue
from mobilevit_fast.kernels.weights import ConvWeights, DepthwiseWeights


def depthwise_conv2d(
    x: Tensor,
    w: ConvWeights | DepthwiseWeights,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.depthwise_conv2d`."""
    y = F.conv2d(x, w.weight, None, stride, padding, dilation, groups=x.shape[1])  # (N, C, Ho, Wo)
    return epilogue(y, w.scale, w.bias, activation)
