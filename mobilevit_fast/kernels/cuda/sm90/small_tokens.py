"""Parameters of transformer stacks in the order of the kernel that divides them by tokens alone.

That is ``small_tokens_shapes_sm90.h``: all weights as one stream of fragments, and the vectors behind it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import affine, fragments, padded

SIZES = {
    *((96, 144, 2), (128, 192, 4), (160, 240, 3)),
    *((64, 96, 2), (80, 120, 4), (96, 144, 3)),
    *((48, 64, 2), (64, 80, 4), (80, 96, 3)),
}
"""Channels, features and layers (``TokensShapes``)."""
HEADS = 4


def has(in_weight: Tensor, fc1_weight: Tensor, out_weight: Tensor, num_heads: int) -> bool:
    """Whether the kernel computes with such weights."""
    features, channels = in_weight.shape[:2]
    layers, hidden = fc1_weight.shape[:2]
    same = hidden == 2 * features and out_weight.shape[0] == channels and num_heads == HEADS
    return same and (channels, features, layers) in SIZES and in_weight.dtype == torch.float16


def _filled(rows: Tensor, parts: int = 1) -> Tensor:
    """Outputs (O, ...), each of some equal parts rounded up to 16 with zeros."""
    by_part = rows.unflatten(0, (parts, -1))
    size = by_part.shape[1]
    more = by_part.new_zeros(parts, padded(size, 16) - size, *by_part.shape[2:])
    return torch.cat((by_part, more), 1).flatten(0, 1)


def pack(
    in_weight: Tensor,
    in_bias: Tensor | None,
    norm1_weight: Tensor,
    norm1_bias: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor,
    norm2_weight: Tensor,
    norm2_bias: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    out_weight: Tensor,
    out_scale: Tensor | None,
    out_bias: Tensor | None,
) -> Tensor:
    """The stream and the vectors, a vector as many numbers as features rounded up to 16."""
    features = in_weight.shape[0]
    width = padded(features, 16)

    def hidden(rows: Tensor) -> Tensor:  # twice the features, as many as twice a vector
        return torch.cat((rows, rows.new_zeros(2 * width - 2 * features, *rows.shape[1:])))

    stream, vectors = [fragments(in_weight.flatten(1))], [_filled(affine(in_bias, in_weight, 1, 0.0))]
    for i in range(len(qkv_weight)):
        qkv_of_layer = qkv_weight.new_zeros(3 * features) if qkv_bias is None else qkv_bias[i]
        stream += [fragments(_filled(qkv_weight[i], 3)), fragments(proj_weight[i])]
        stream += [fragments(hidden(fc1_weight[i])), fragments(hidden(fc2_weight[i].t()).t())]
        vectors += [_filled(norm1_weight[i]), _filled(norm1_bias[i]), _filled(qkv_of_layer, 3), _filled(proj_bias[i])]
        vectors += [_filled(norm2_weight[i]), _filled(norm2_bias[i]), hidden(fc1_bias[i]), _filled(fc2_bias[i])]
    stream.append(fragments(out_weight.flatten(1)))
    vectors += [_filled(norm_weight), _filled(norm_bias)]
    vectors += [affine(out_scale, out_weight, width, 1.0), affine(out_bias, out_weight, width, 0.0)]
    words = [part.contiguous().flatten().view(torch.float32) for part in stream]
    return torch.cat([*words, *(vector.float() for vector in vectors)])
