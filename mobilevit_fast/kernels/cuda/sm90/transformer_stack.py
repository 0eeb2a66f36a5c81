"""Parameters of transformer stacks as the kernel of many images takes them (``transformer_stack_sm90_shapes.h``).

They are one stream of float32 words in the order of their use. Weights lie in blocks of 8 x 8 elements of 16 bits:
(depth / 8, columns / 8, 8 columns, 8 of the depth). Vectors, which are biases and a norm's weight and bias, follow the
layer before them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import affine, padded, scale_and_bias
from mobilevit_fast.kernels.weights import HEADS, StackWeights, part

WORDS = 32
"""A layer begins at a multiple of so many words, 128 bytes."""


class Shape(NamedTuple):
    """Sizes that set the order: tokens of a sequence, and hidden units that are computed before the next ones."""

    tokens: int
    hidden_part: int

    @property
    def pair(self) -> bool:
        """Whether a sequence is two blocks', which compute the next head's query, key and value before a context."""
        return self.tokens == 256


SHAPES = {
    (96, 144, 2): Shape(256, 48),
    (128, 192, 4): Shape(64, 48),
    (160, 240, 3): Shape(16, 96),
    (64, 96, 2): Shape(256, 48),
    (80, 120, 4): Shape(64, 48),
    (96, 144, 3): Shape(16, 48),
    (48, 64, 2): Shape(256, 64),
    (64, 80, 4): Shape(64, 80),
    (80, 96, 3): Shape(16, 48),
}
"""By channels, features and layers."""
MAX_PIPED_FEATURES = 192
"""Up to here the next part of the hidden units is begun before the last one is added to the stream."""


def has(w: StackWeights, num_heads: int) -> bool:
    """Whether the kernel computes with such weights."""
    return w.is_a_models(num_heads) and w.key in SHAPES


def _channels(weight: Tensor) -> Tensor:
    """Channels (C, ...) such that a lane, which has two of every eight, has eight neighbours in the image.

    Of the last 16, where 32 do not divide C, it has four neighbours.
    """
    whole = weight.shape[0] // 32 * 32
    groups = [weight[:whole].unflatten(0, (-1, 4, 4, 2))]
    if whole < weight.shape[0]:
        groups.append(weight[whole:].unflatten(0, (1, 4, 2, 2)))
    # (groups, lane, tile, 2, ...) to (groups, tile, lane, 2, ...)
    return torch.cat([group.transpose(1, 2).flatten(0, 3) for group in groups])


def _blocks(weights: Tensor) -> Tensor:
    """Layers (..., columns, depth) as words (..., words): in blocks, zeros up to a multiple of 16 of the depth."""
    *_, columns, depth = weights.shape
    filled = F.pad(weights, (0, padded(depth, 16) - depth))
    blocks = filled.unflatten(-1, (-1, 8)).unflatten(-3, (columns // 8, 8))  # (..., N / 8, 8, K / 8, 8)
    return blocks.movedim(-2, -4).flatten(-4).contiguous().view(torch.float32)


def _layer(words: Tensor, *vectors: Tensor) -> Tensor:
    """Words (..., words) with vectors (..., size) behind them, up to where the next layer begins."""
    joined = torch.cat([words, *(vector.float() for vector in vectors)], -1)
    return F.pad(joined, (0, padded(joined.shape[-1], WORDS) - joined.shape[-1]))


def _by_head(rows: Tensor, width: int) -> Tensor:
    """Outputs (L, 3·D, ...) of query, key and value as (L, heads, 3, width, ...), zeros at the end of each."""
    by_kind = rows.unflatten(1, (3, HEADS, -1)).transpose(1, 2)  # (L, heads, 3, head_dim, ...)
    missing = by_kind.new_zeros(*by_kind.shape[:3], width - by_kind.shape[3], *by_kind.shape[4:])
    return torch.cat((by_kind, missing), 3)


def _attention(shape: Shape, qkv: Tensor, qkv_bias: Tensor, proj: Tensor) -> Tensor:
    """The layers of all heads, (L, words)."""
    head_dim = proj.shape[1] // HEADS
    width = padded(head_dim + 1 if shape.pair else head_dim, 8)
    weights, biases = _by_head(qkv, width), _by_head(qkv_bias, width)
    if shape.pair:  # a value of one adds up the weights of the softmax
        biases[:, :, 2, head_dim] = 1
    if shape.tokens != 16:  # one product for all three
        weights, biases = weights.flatten(2, 3).unsqueeze(2), biases.flatten(2, 3).unsqueeze(2)
    begin = _layer(_blocks(weights), biases).flatten(2)  # (L, heads, words)
    context = proj.unflatten(2, (HEADS, head_dim)).movedim(2, 1)  # (L, heads, D, head_dim)
    end = _layer(_blocks(F.pad(context, (0, width - head_dim))))  # (L, heads, words)
    return _interleaved(begin, end, ahead=shape.pair)


def _mlp(shape: Shape, fc1: Tensor, fc1_bias: Tensor, fc2: Tensor) -> Tensor:
    """The layers of all parts of the hidden units, (L, words)."""
    units = (-1, shape.hidden_part)
    begin = _layer(_blocks(fc1.unflatten(1, units)), fc1_bias.unflatten(1, units))  # (L, parts, words)
    end = _layer(_blocks(fc2.unflatten(2, units).movedim(2, 1)))  # (L, parts, words)
    return _interleaved(begin, end, ahead=fc2.shape[1] <= MAX_PIPED_FEATURES)


def _interleaved(begin: Tensor, end: Tensor, ahead: bool) -> Tensor:
    """Beginnings and ends of parts, (L, parts, words) each, in turn (L, words); ``ahead``: the next begins earlier."""
    if not ahead:
        return torch.cat((begin, end), -1).flatten(1)
    middle = torch.cat((begin[:, 1:], end[:, :-1]), -1).flatten(1)
    return torch.cat((begin[:, 0], middle, end[:, -1]), -1)


def pack(w: StackWeights) -> Tensor:
    """The stream of weights."""
    shape = SHAPES[w.key]
    first = _blocks(_channels(w.in_weight.flatten(1).T).T)
    # What follows a layer's MLP: the bias of its end, and the next norm.
    norms = zip(w.norm("norm1", slice(1, None)), w.norm("norm"), strict=True)
    following = [torch.cat((layers.float(), last[None].float())) for layers, last in norms]
    norm2 = [vector.float() for vector in w.norm("norm2")]
    of_layers = (
        _attention(shape, w.qkv_weight, w.qkv_bias_or_zeros.float(), w.proj_weight),
        _layer(torch.cat((w.proj_bias.float(), *norm2), 1)),
        _mlp(shape, w.fc1_weight, w.fc1_bias, w.fc2_weight),
        _layer(torch.cat((w.fc2_bias.float(), *following), 1)),
    )
    last = _blocks(_channels(w.out_weight.flatten(1)))
    return torch.cat(
        (
            _layer(first, affine(w.in_bias, w.in_weight, 1, 0.0), *w.norm("norm1", 0)),
            torch.cat(of_layers, 1).flatten(),
            _layer(last, *map(_channels, scale_and_bias(part(w, "out")))),
        )
    )
