"""Parameters of the operator as its kernels take them (``csrc/cuda/mobilevit_transformer_params.h``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.cuda.packing import affine, fragments, padded


def _layers(vectors: Tensor | None, layers: int, size: int) -> Tensor:
    """Vectors (L, size) as float32 (L, padded); zeros where there are none."""
    if vectors is None:
        vectors = torch.zeros(layers, size)
    return torch.stack([affine(vector, size, 16, 0.0) for vector in vectors])


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


def mobilevit_transformer(
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
    num_heads: int,
) -> dict[str, Tensor]:
    """Weights in fragments, vectors in float32, by the names of the kernels' parameters."""
    features = in_weight.shape[0]
    layers, hidden = fc1_weight.shape[:2]
    outputs = out_weight.shape[0]
    qkv = _by_head(qkv_weight, num_heads)  # (L, outputs, D)
    if qkv_bias is None:
        qkv_bias = torch.zeros(layers, 3 * features)
    return {
        "in_weight": fragments(in_weight.flatten(1)).contiguous(),  # (C / 16, D / 16, 32, 8)
        "in_bias": affine(in_bias, features, 16, 0.0),
        "norm1_weight": _layers(norm1_weight, layers, features),
        "norm1_bias": _layers(norm1_bias, layers, features),
        "qkv_weight": _weights(qkv),
        "qkv_bias": _layers(_by_head(qkv_bias, num_heads), layers, qkv.shape[1]),
        "proj_weight": _weights(proj_weight),
        "proj_bias": _layers(proj_bias, layers, features),
        "norm2_weight": _layers(norm2_weight, layers, features),
        "norm2_bias": _layers(norm2_bias, layers, features),
        "fc1_weight": _weights(fc1_weight),
        "fc1_bias": _layers(fc1_bias, layers, hidden),
        "fc2_weight": _weights(fc2_weight),
        "fc2_bias": _layers(fc2_bias, layers, features),
        "norm_weight": affine(norm_weight, features, 16, 0.0),
        "norm_bias": affine(norm_bias, features, 16, 0.0),
        "out_weight": fragments(out_weight.flatten(1)).contiguous(),  # (D / 16, O / 16, 32, 8)
        "out_scale": affine(out_scale, outputs, 16, 1.0),
        "out_bias": affine(out_bias, outputs, 16, 0.0),
    }
