"""Weights as the operators take them: normalisation folded, query, key and value joined, layers stacked."""

from __future__ import annotations

import torch
from torch import Tensor

from mobilevit_fast.nn.parts import ConvParts, FoldedConv, TransformerLayerParts, Unsupported


def statistics_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which folding is done and biases are kept: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def fold(parts: ConvParts, dtype: torch.dtype) -> FoldedConv:
    """Fold y = norm(conv(x)) into one convolution: w·γ/sqrt(σ² + ε), (b − μ)·γ/sqrt(σ² + ε) + β.

    Computed in float32 at least; the weight is then rounded to ``dtype``, the bias keeps its precision.
    """
    conv, norm = parts.conv, parts.norm
    precise = statistics_type(dtype)
    if norm is None:
        bias = None if conv.bias is None else conv.bias.to(precise)
        return FoldedConv(conv.weight.to(dtype), bias)
    if norm.running_mean is None or norm.running_var is None:
        raise Unsupported("its batch normalisation keeps no running statistics")
    scale = torch.rsqrt(norm.running_var.to(precise) + norm.eps)  # (O,)
    if norm.weight is not None:
        scale = scale * norm.weight.to(precise)
    shift = -norm.running_mean.to(precise) * scale  # (O,)
    if conv.bias is not None:
        shift = shift + conv.bias.to(precise) * scale
    if norm.bias is not None:
        shift = shift + norm.bias.to(precise)
    weight = conv.weight.to(precise) * scale[:, None, None, None]
    return FoldedConv(weight.to(dtype), shift)


def folded_bias(parts: ConvParts, dtype: torch.dtype) -> Tensor:
    """The bias of a folded convolution, zeros where it has none."""
    bias = fold(parts, dtype).bias
    if bias is None:
        weight = parts.conv.weight
        return torch.zeros(weight.shape[0], dtype=statistics_type(dtype), device=weight.device)
    return bias


def stack_layers(layers: tuple[TransformerLayerParts, ...], dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """The twelve stacked parameters of ``mobilevit_transformer``, from norm1 to fc2, in the order of its schema."""
    precise = statistics_type(dtype)

    def stacked(tensors: list[Tensor | None], to: torch.dtype) -> Tensor:
        present = [t for t in tensors if t is not None]
        if len(present) < len(tensors):
            raise Unsupported("one of its linear layers has no bias")
        return torch.stack(present).to(to)

    def joined(tensors: list[Tensor | None]) -> Tensor | None:
        present = [t for t in tensors if t is not None]
        if present and len(present) < len(tensors):
            raise Unsupported("some of query, key and value have biases and others have none")
        return torch.cat(present) if present else None

    qkv_biases = [joined([linear.bias for linear in layer.qkv]) for layer in layers]
    return (
        stacked([layer.norm1.weight for layer in layers], precise),
        stacked([layer.norm1.bias for layer in layers], precise),
        stacked([joined([linear.weight for linear in layer.qkv]) for layer in layers], dtype),
        None if all(bias is None for bias in qkv_biases) else stacked(qkv_biases, precise),
        stacked([layer.proj.weight for layer in layers], dtype),
        stacked([layer.proj.bias for layer in layers], precise),
        stacked([layer.norm2.weight for layer in layers], precise),
        stacked([layer.norm2.bias for layer in layers], precise),
        stacked([layer.fc1.weight for layer in layers], dtype),
        stacked([layer.fc1.bias for layer in layers], precise),
        stacked([layer.fc2.weight for layer in layers], dtype),
        stacked([layer.fc2.bias for layer in layers], precise),
    )
