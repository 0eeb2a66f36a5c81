"""Parameters as the operators take them: normalisation as scale and bias, query, key, value joined, layers stacked."""

from __future__ import annotations

import torch
from torch import Tensor

from mobilevit_fast.acceleration.parts import AffineConv, ConvParts, TransformerLayerParts, Unsupported


def statistics_type(dtype: torch.dtype) -> torch.dtype:
    """The type of scales, biases and layer norms beside weights of ``dtype``: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def inputs_innermost(weight: Tensor) -> Tensor:
    """A dense weight (…, C, kh, kw) of the same values; off the CPU with C innermost in memory, as GPU kernels read it.

    Those of the CPU pack weights in an order of their own.
    """
    if weight.device.type == "cpu":
        return weight
    return weight.movedim(-3, -1).contiguous().movedim(-1, -3)


def affine(parts: ConvParts, dtype: torch.dtype) -> AffineConv:
    """y = norm(conv(x)) as scale·conv(x) + bias: scale γ/sqrt(σ² + ε), bias (b − μ)·scale + β.

    The weight itself stays as it is. Multiplying it by the scale would round every product anew: with float16 weights
    that costs four times the error PyTorch makes, since the rounding is the same for all pixels and never averages out.
    """
    conv, norm = parts.conv, parts.norm
    weight, to = inputs_innermost(conv.weight.to(dtype)), statistics_type(dtype)
    if norm is None:
        return AffineConv(weight, None, None if conv.bias is None else conv.bias.to(to))
    if norm.running_mean is None or norm.running_var is None:
        raise Unsupported("its batch normalisation keeps no running statistics")
    if norm.running_var.shape != weight.shape[:1]:
        channels, normalized = len(weight), len(norm.running_var)
        raise Unsupported(f"its convolution has {channels} outputs, and its batch normalisation is for {normalized}")
    precise = torch.float32 if weight.device.type == "mps" else torch.float64
    scale = torch.rsqrt(norm.running_var.to(precise) + norm.eps)  # (O,)
    if norm.weight is not None:
        scale = scale * norm.weight.to(precise)
    bias = -norm.running_mean.to(precise) * scale  # (O,)
    if conv.bias is not None:
        bias = bias + conv.bias.to(precise) * scale
    if norm.bias is not None:
        bias = bias + norm.bias.to(precise)
    return AffineConv(weight, scale.to(to), bias.to(to))


def stack_layers(layers: tuple[TransformerLayerParts, ...], dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """The twelve stacked parameters of ``mobilevit_transformer``, from norm1 to fc2, in the order of its schema."""
    precise = statistics_type(dtype)

    def stacked(tensors: list[Tensor | None], to: torch.dtype) -> Tensor:
        present = [t for t in tensors if t is not None]
        if len(present) < len(tensors):
            raise Unsupported("one of its linear layers has no bias")
        _check_shapes([tuple(t.shape) for t in present])
        return torch.stack(present).to(to)

    def joined(tensors: list[Tensor | None]) -> Tensor | None:
        present = [t for t in tensors if t is not None]
        if present and len(present) < len(tensors):
            raise Unsupported("some of query, key and value have biases and others have none")
        _check_shapes([tuple(t.shape[1:]) for t in present])
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


def _check_shapes(shapes: list[tuple[int, ...]]) -> None:
    if torch.compiler.is_compiling():  # PyTorch refuses them in words of its own
        return
    differing = next((shape for shape in shapes if shape != shapes[0]), None)
    if differing is not None:
        raise Unsupported(f"its transformer has parameters of different shapes side by side: {shapes[0]}, {differing}")
