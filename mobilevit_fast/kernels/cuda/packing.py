"""Weights in the order of the matrix unit: the fragments of ``csrc/cuda/mma/fragments.h``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.weights import ConvWeights, DepthwiseWeights


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


def fragments(weight: Tensor, outputs: int = 16) -> Tensor:
    """A linear layer (O, I) as (I / 16, O / 16, 32, 8), both sizes rounded up and filled with zeros.

    Entry (s, q, lane) is what a lane holds of two products m16n8k16: input channels 16·s and on, output channels 16·q
    and on. ``outputs`` is the multiple that O is rounded up to.
    """
    o, i = padded(weight.shape[0], outputs), padded(weight.shape[1], 16)
    filled = F.pad(weight, (0, i - weight.shape[1], 0, o - weight.shape[0]))
    # Output channel 16·q + 8·tile + group, input channel 16·s + 8·register + 2·member + half; lane 4·group + member.
    q_tile_group_s_register_member_half = filled.reshape(o // 16, 2, 8, i // 16, 2, 4, 2)
    return q_tile_group_s_register_member_half.permute(3, 0, 2, 5, 1, 4, 6).reshape(i // 16, o // 16, 32, 8)


def affine(values: Tensor | None, like: Tensor, multiple: int, missing: float) -> Tensor:
    """Scales or biases of a convolution of weight ``like``, one for each output, as float32.

    Rounded up to a multiple with zeros; ``missing`` where there are none.
    """
    size = like.shape[0]
    if values is None:
        values = like.new_full((size,), missing, dtype=torch.float32)
    return F.pad(values.float(), (0, padded(size, multiple) - size)).contiguous()


def scale_and_bias(conv: ConvWeights | DepthwiseWeights, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Both of a convolution, as :func:`affine`: ones and zeros where there are none."""
    return affine(conv.scale, conv.weight, multiple, 1.0), affine(conv.bias, conv.weight, multiple, 0.0)


def in_pairs(scale: Tensor, bias: Tensor) -> Tensor:
    """(O,) and (O,) as (O / 2, 4): scales of two outputs, then their biases."""
    return torch.cat((scale.unflatten(0, (-1, 2)), bias.unflatten(0, (-1, 2))), 1)


def neighbouring_columns(values: Tensor) -> Tensor:
    """Outputs (O, ...) in the order of a product's columns: those of a lane in up to four tiles are neighbours."""
    run = next(run for run in (4, 2, 1) if values.shape[0] % (8 * run) == 0)
    return values.unflatten(0, (-1, 4, run, 2)).transpose(1, 2).flatten(0, 3)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Parts one after the other in words of 32 bits, each rounded up to 16 bytes (read by ``csrc/cuda/binding.h``)."""
    numbers = [part.contiguous().flatten() for part in parts]
    pieces = [F.pad(part, (0, -part.numel() % (16 // part.element_size()))) for part in numbers]
    return torch.cat([part.view(torch.float32) for part in pieces])


def pair_tiles(weight: Tensor) -> Tensor:
    """A linear layer (O, I) as (O / 8, I / 32, 32, 8), I rounded up and filled with zeros.

    Entry (tile, pair, lane) is what a lane holds of two products m16n8k16, one over input channels 32·pair and on, one
    over the next 16: output channels 8·tile and on.
    """
    o, i = weight.shape[0], padded(weight.shape[1], 32)
    filled = F.pad(weight, (0, i - weight.shape[1]))
    # Output channel 8·tile + group, input channel 32·pair + 8·register + 2·member + half; lane 4·group + member.
    tile_group_pair_register_member_half = filled.reshape(o // 8, 8, i // 32, 4, 4, 2)
    return tile_group_pair_register_member_half.permute(0, 2, 1, 4, 3, 5).reshape(o // 8, i // 32, 32, 8)


def slices_joined(parts: Sequence[Tensor], slices: int) -> Tensor:
    """Parts that are cut along their first dimension, slice after slice as float32 (slices, words).

    A slice is rounded up to 128 bytes.
    """
    words = [part.contiguous().view(slices, -1).view(torch.float32) for part in parts]
    joined_words = torch.cat(words, 1)
    return F.pad(joined_words, (0, padded(joined_words.shape[1], 32) - joined_words.shape[1]))
