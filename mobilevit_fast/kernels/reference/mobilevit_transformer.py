"""The transformer stack of a MobileViT block in plain PyTorch, pixels in, pixels out."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from mobilevit_fast.kernels.epilogue import ACTIVATIONS
from mobilevit_fast.kernels.reference.conv2d_bias_act import conv2d_bias_act
from mobilevit_fast.kernels.weights import StackWeights, part


def unfold(x: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Pixels (N, D, H, W) to sequences (N·ph·pw, H/ph·W/pw, D): one for each position (i, j) inside the patches.

    Token n of sequence (i, j) is pixel (ph·(n // (W/pw)) + i, pw·(n % (W/pw)) + j). H and W are multiples of the patch.
    """
    batch, width, height, image_width = x.shape
    ph, pw = patch_size
    rows, columns = height // ph, image_width // pw
    patches = x.reshape(batch, width, rows, ph, columns, pw)  # (N, D, rows, i, columns, j)
    return patches.permute(0, 3, 5, 2, 4, 1).reshape(batch * ph * pw, rows * columns, width)


def fold(tokens: Tensor, patch_size: Sequence[int], height: int, width: int) -> Tensor:
    """The inverse of :func:`unfold`: sequences (N·ph·pw, H/ph·W/pw, D) to pixels (N, D, H, W)."""
    ph, pw = patch_size
    rows, columns, channels = height // ph, width // pw, tokens.shape[-1]
    patches = tokens.reshape(-1, ph, pw, rows, columns, channels)  # (N, i, j, rows, columns, D)
    return patches.permute(0, 5, 3, 1, 4, 2).reshape(-1, channels, height, width)


def mobilevit_transformer(
    x: Tensor,
    w: StackWeights,
    num_heads: int,
    patch_size: Sequence[int],
    eps: float,
    mlp_activation: str,
    out_activation: str,
) -> Tensor:
    """See :func:`mobilevit_fast.ops.mobilevit_transformer`."""

    def cast(parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else parameter.to(x.dtype)

    def layer_norm(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(tokens, tokens.shape[-1:], cast(weight), cast(bias), eps)

    pointwise = ([1, 1], [0, 0], [1, 1])
    features = conv2d_bias_act(x, None, part(w, "in"), *pointwise, "none")  # (N, D, H, W)

    size = features.shape[2:]
    ph, pw = patch_size
    whole = ((size[0] + ph - 1) // ph * ph, (size[1] + pw - 1) // pw * pw)
    resized = whole != tuple(size)
    if resized:
        features = F.interpolate(features, whole, mode="bilinear", align_corners=False)

    tokens = unfold(features, patch_size)  # (N·ph·pw, tokens, D)
    for layer in range(w.fc1_weight.shape[0]):
        normed = layer_norm(tokens, *w.norm("norm1", layer))  # (N·ph·pw, tokens, D)
        qkv = F.linear(normed, w.qkv_weight[layer], None if w.qkv_bias is None else cast(w.qkv_bias[layer]))
        heads = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, N·ph·pw, heads, tokens, d)
        context = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])  # (N·ph·pw, heads, tokens, d)
        context = context.transpose(1, 2).flatten(2)  # (N·ph·pw, tokens, D)
        tokens = tokens + F.linear(context, w.proj_weight[layer], cast(w.proj_bias[layer]))

        normed = layer_norm(tokens, *w.norm("norm2", layer))  # (N·ph·pw, tokens, D)
        hidden = F.linear(normed, w.fc1_weight[layer], cast(w.fc1_bias[layer]))  # (N·ph·pw, tokens, M)
        hidden = ACTIVATIONS[mlp_activation](hidden)
        tokens = tokens + F.linear(hidden, w.fc2_weight[layer], cast(w.fc2_bias[layer]))
    tokens = layer_norm(tokens, *w.norm("norm"))

    features = fold(tokens, patch_size, *whole)  # (N, D, H, W)
    if resized:
        features = F.interpolate(features, size, mode="bilinear", align_corners=False)
    return conv2d_bias_act(features, None, part(w, "out"), *pointwise, out_activation)  # (N, O, H, W)
