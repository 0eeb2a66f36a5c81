"""CUDA kernels of the transformer: cases, weights (``csrc/cuda/mobilevit_transformer/mobilevit_transformer.h``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import affine, fragments, joined, padded, scale_and_bias
from mobilevit_fast.kernels.cuda.rules import SHARED_BYTES, countable, has_sm90, image_of, multiples_of_eight
from mobilevit_fast.kernels.cuda.sm90 import small_stack, transformer_stack
from mobilevit_fast.kernels.support import Support
from mobilevit_fast.kernels.weights import StackWeights, part

MAX_FEATURES, MAX_HEAD_DIM = 256, 64


def _layers(vectors: Tensor) -> Tensor:
    """Vectors (L, size) as float32 (L, padded)."""
    size = vectors.shape[1]
    return F.pad(vectors.float(), (0, padded(size, 16) - size))


def _weights(weights: Tensor) -> Tensor:
    """Linear layers (L, O, I) as (L, I / 16, O / 16, 32, 8)."""
    return torch.stack([fragments(weight) for weight in weights]).contiguous()


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """Outputs (L, 3·D, …) of query, key and value as (L, outputs of a head after another, …), padded with zeros.

    A head's query, key and value are each padded to a multiple of 8, and together to one of 16.
    """
    layers, rest = rows.shape[0], rows.shape[2:]
    head_dim = rows.shape[1] // (3 * heads)
    by_part = rows.reshape(layers, 3, heads, head_dim, -1)  # (L, 3, heads, d, …)
    by_part = F.pad(by_part, (0, 0, 0, padded(head_dim, 8) - head_dim))
    by_head = by_part.transpose(1, 2).flatten(2, 3)  # (L, heads, 3·d padded, …)
    size = by_head.shape[2]
    return F.pad(by_head, (0, 0, 0, padded(size, 16) - size)).reshape(layers, -1, *rest)


def pack(w: StackWeights, num_heads: int) -> Tensor:
    """The operator's weights in fragments, vectors in float32; behind them those of sm90's kernels."""
    parts = [
        fragments(w.in_weight.flatten(1)),  # (C / 16, D / 16, 32, 8)
        affine(w.in_bias, w.in_weight, 16, 0.0),
        *map(_layers, w.norm("norm1")),
        _weights(_by_head(w.qkv_weight, num_heads)),
        _layers(_by_head(w.qkv_bias_or_zeros, num_heads)),
        _weights(w.proj_weight),
        _layers(w.proj_bias),
        *map(_layers, w.norm("norm2")),
        _weights(w.fc1_weight),
        _layers(w.fc1_bias),
        _weights(w.fc2_weight),
        _layers(w.fc2_bias),
        *(_layers(vector[None]) for vector in w.norm("norm")),
        fragments(w.out_weight.flatten(1)),  # (D / 16, O / 16, 32, 8)
        *scale_and_bias(part(w, "out"), 16),
    ]
    if has_sm90(w.in_weight.device):
        parts += [kernel.pack(w) for kernel in (transformer_stack, small_stack) if kernel.has(w, num_heads)]
    return joined(parts)


def shared_bytes(channels: int, features: int, hidden: int, outputs: int, heads: int) -> int:
    """Shared memory of the smallest block of a layer: 16 tokens and their context, and what comes and goes."""

    def pitch(width: int) -> int:
        return (padded(width, 8) // 8 | 1) * 8

    keys_and_values = 2 * min(heads, 8) * 2 * 16 * pitch(padded(features // heads, 8))
    workspace = max(keys_and_values, *(16 * pitch(width) for width in (hidden, channels, outputs)))
    return 2 * padded(2 * 16 * pitch(features), 128) + padded(2 * workspace, 128)


def takes(arguments: dict[str, Any]) -> Support:
    """Whether the kernels take these arguments, of which the image may be missing."""
    if "in_weight" not in arguments:
        return Support(True)
    features, channels = arguments["in_weight"].shape[:2]
    hidden, outputs = arguments["fc1_weight"].shape[1], arguments["out_weight"].shape[0]
    heads, patch = arguments["num_heads"], arguments["patch_size"]
    if max(patch) >= 1 << 15:
        return Support(False, f"expected a patch of fewer than 2^15 rows and columns, got {patch[0]}x{patch[1]}")
    if features > MAX_FEATURES:
        return Support(False, f"expected at most {MAX_FEATURES} hidden channels, got {features}")
    if features // heads % 2 or features // heads > MAX_HEAD_DIM:
        got = f"{features // heads}"
        return Support(False, f"expected heads of an even number of channels, at most {MAX_HEAD_DIM}, got {got}")
    if shared_bytes(channels, features, hidden, outputs, heads) > SHARED_BYTES:
        got = f"{channels}, {features} hidden channels, {hidden} hidden units, {outputs} output channels"
        return Support(False, f"expected channels that shared memory holds, got {got}")
    multiples = multiples_of_eight(
        input_channels=channels, hidden_channels=features, hidden_units=hidden, output_channels=outputs
    )
    x = image_of(arguments)
    if x is None or not multiples.ok:
        return multiples
    whole = [padded(size, step) for size, step in zip(x.shape[2:], patch, strict=True)]
    return countable(rows=x.shape[2], columns=x.shape[3], pixels=max(x.shape[0], 1) * whole[0] * whole[1])
