"""Parameters of a model's first convolution in the order of ``csrc/cuda/sm90/stem_sm90_kernel.h``."""

from __future__ import annotations

import torch
from torch import Tensor

from mobilevit_fast.kernels.weights import ConvWeights

OUTPUTS = 16


def has(weight: Tensor) -> bool:
    """Whether the kernel convolves with such a weight (O, C, kh, kw); of four channels the last is constant."""
    outputs, channels, *window = weight.shape
    return window == [3, 3] and outputs == OUTPUTS and channels in (3, 4)


def pack_weight(weight: Tensor) -> Tensor:
    """The three first channels as fragments, (2 steps, 2 halves of the outputs, 32 lanes, 4).

    A window's row is 5 words: an element before it, which has no weight, and its nine. Words 0 to 3 of the three rows
    are three quarters of the product's depth, the words 4 the last one.
    """
    index = torch.arange(2 * 2 * 32 * 4, device=weight.device)
    entry, lane, half, step = index % 4, index // 4 % 32, index // 128 % 2, index // 256
    member, column = lane % 4, lane // 4
    quarter = 2 * step + entry // 2
    row, word = torch.where(quarter < 3, quarter, member), torch.where(quarter < 3, member, 4)
    number = 2 * word + entry % 2 - 1
    is_there = (row < 3) & (number >= 0)
    row, number = row.clamp(max=2), number.clamp(min=0)
    output = column // 2 * 4 + 2 * half + column % 2  # a lane has four neighbouring ones
    return torch.where(is_there, weight[output, number % 3, row, number // 3], 0).reshape(2, 2, 32, 4)


def pack_bias(w: ConvWeights) -> Tensor:
    """A bias for each place of a window in the image, (8, 16).

    It holds what the constant channel adds in those rows and columns of the window that are in the image. A place is
    1 where the first row is not, plus 2 where the last row is not, plus 4 where the first column is not.
    """
    value = w.weight.new_zeros(OUTPUTS, dtype=torch.float32) if w.bias is None else w.bias.float()
    if w.weight.shape[1] == 3:
        return value.expand(8, OUTPUTS)
    place = torch.arange(8, device=w.weight.device)
    row, column = (torch.arange(3, device=w.weight.device) for _ in range(2))
    rows = ~((place[:, None] & 1 > 0) & (row == 0) | (place[:, None] & 2 > 0) & (row == 2))  # (8, 3)
    columns = ~((place[:, None] & 4 > 0) & (column == 0))
    inside = (rows[:, :, None] & columns[:, None]).float()  # (8, 3, 3)
    constant = (inside[:, None] * w.weight[:, 3].float()).sum((2, 3))  # (8, O)
    return value + (constant if w.scale is None else constant * w.scale.float())


def pack(w: ConvWeights) -> list[Tensor]:
    """Weight and biases; the kernel reads the other kernels' scales."""
    return [pack_weight(w.weight), pack_bias(w)]
