"""Parameters of transformer stacks in the order of the kernel for few images, ``small_stack_shapes_sm90.h``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import affine, fragments, padded, scale_and_bias
from mobilevit_fast.kernels.weights import HEADS, StackWeights, part

SLICES = {
    (96, 144, 2): 4,
    (128, 192, 4): 4,
    (160, 240, 3): 8,
    (64, 96, 2): 4,
    (80, 120, 4): 4,
    (96, 144, 3): 8,
    (48, 64, 2): 4,
    (64, 80, 4): 4,
    (80, 96, 3): 8,
}
"""Blocks that share out the columns of layers, by channels, features and layers (``StackShapes``)."""


def has(w: StackWeights, num_heads: int) -> bool:
    """Whether the kernel computes with such weights."""
    return w.is_a_models(num_heads) and w.key in SLICES


def _columns(rows: Tensor, slices: int) -> Tensor:
    """Outputs (O, ...) shared out, (slices, ...): each slice has as many, a multiple of 16, zeros at the end."""
    outputs = rows.shape[0]
    width = padded(-(-outputs // slices), 16)
    filled = torch.cat((rows, rows.new_zeros(width * slices - outputs, *rows.shape[1:])))
    return filled.unflatten(0, (slices, width))


def _heads(rows: Tensor, slices: int) -> Tensor:
    """Outputs (3·D, ...) of query, key and value as (slices, ...): of a slice's part of its head each of the three."""
    parts = slices // HEADS
    by_kind = rows.unflatten(0, (3, HEADS, -1))  # (3, heads, head_dim, ...)
    head_dim = by_kind.shape[2]
    width = padded(-(-head_dim // parts), 16)
    more = by_kind.new_zeros(3, HEADS, parts * width - head_dim, *by_kind.shape[3:])
    shared = torch.cat((by_kind, more), 2).unflatten(2, (parts, width))  # (3, heads, parts, width, ...)
    return shared.movedim(0, 2).flatten(0, 1).flatten(1, 2)  # (slices, 3 * width, ...)


def _context(weight: Tensor, slices: int) -> Tensor:
    """Inputs (D, D) of the projection in the order of context: heads of whole parts, zeros between them."""
    parts = slices // HEADS
    by_head = weight.unflatten(1, (HEADS, -1))  # (D, heads, head_dim)
    head_dim = by_head.shape[2]
    width = parts * padded(-(-head_dim // parts), 16)
    return F.pad(by_head, (0, width - head_dim)).flatten(1)


def _chunk(weight: Tensor, bias: Tensor, scale: Tensor | None, norm: tuple[Tensor, Tensor] | None) -> Tensor:
    """A layer's slices (slices, O, I), their biases and scales (slices, O), and the norm before it, (slices, words)."""
    slices = weight.shape[0]
    packed = torch.stack([fragments(part) for part in weight])  # (slices, I / 16, O / 16, 32, 8)
    parts = [packed.flatten(1).view(torch.float32), bias.float()]
    parts.append(torch.zeros_like(parts[1]) if scale is None else scale.float())
    for vector in norm or ():
        parts.append(F.pad(vector.float(), (0, padded(len(vector), 16) - len(vector))).expand(slices, -1))
    words = torch.cat(parts, 1)
    return F.pad(words, (0, padded(words.shape[1], 32) - words.shape[1]))


def pack(w: StackWeights) -> Tensor:
    """Packed weights of the blocks of a slice, slice by slice, in the order in which they need them."""
    slices = SLICES[w.key]

    def columns(rows: Tensor) -> Tensor:
        return _columns(rows, slices)

    chunks = [_chunk(columns(w.in_weight.flatten(1)), columns(affine(w.in_bias, w.in_weight, 1, 0.0)), None, None)]
    for i in range(len(w.qkv_weight)):
        qkv = _heads(w.qkv_weight[i], slices), _heads(w.qkv_bias_or_zeros[i], slices)
        chunks.append(_chunk(*qkv, None, w.norm("norm1", i)))
        chunks.append(_chunk(columns(_context(w.proj_weight[i], slices)), columns(w.proj_bias[i]), None, None))
        chunks.append(_chunk(columns(w.fc1_weight[i]), columns(w.fc1_bias[i]), None, w.norm("norm2", i)))
        chunks.append(_chunk(columns(w.fc2_weight[i]), columns(w.fc2_bias[i]), None, None))
    scale, bias = scale_and_bias(part(w, "out"))
    out = columns(w.out_weight.flatten(1)), columns(bias), columns(scale)
    chunks.append(_chunk(*out, w.norm("norm")))
    return torch.cat(chunks, 1)
