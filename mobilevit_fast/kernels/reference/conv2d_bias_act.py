"""Dense convolution over one or two tensors in plain PyTorch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.epilogue import epilogue
from mobilevit_fast.kernels.weights import ConvWeights


def conv2d_bias_act(
    x: Tensor,
    x2: Tensor | None,
    w: ConvWeights,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.conv2d_bias_act`."""
    if x.dtype == torch.uint8:
        x = x.to(w.weight.dtype)
        if w.weight.shape[1] > x.shape[1]:
            x = torch.cat((x, x.new_ones(x.shape[0], 1, *x.shape[2:])), dim=1)  # (N, C1 + 1, H, W)
    if x2 is not None:
        x = torch.cat((x, x2), dim=1)  # (N, C1 + C2, H, W)
    y = F.conv2d(x, w.weight, None, stride, padding, dilation)  # (N, O, Ho, Wo)
    return epilogue(y, w.scale, w.bias, activation)
