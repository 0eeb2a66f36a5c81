"""Every operator composed from torch's own modules, independently of the reference kernels."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, nn.Module] = {"none": nn.Identity(), "relu": nn.ReLU(), "silu": nn.SiLU()}


def conv(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str,
) -> Tensor:
    """Conv2d, BatchNorm2d with the given scale and bias as its parameters, activation."""
    outputs, inputs = weight.shape[:2]
    geometry = (tuple(weight.shape[2:]), tuple(stride), tuple(padding), tuple(dilation))
    module = nn.Conv2d(x.shape[1], outputs, *geometry, groups=x.shape[1] // inputs, bias=False).to(x)
    module.weight.data = weight
    norm = nn.BatchNorm2d(outputs, eps=1e-30).to(x).eval()
    norm.weight.data = torch.ones_like(norm.weight) if scale is None else scale.to(x.dtype)
    norm.bias.data = torch.zeros_like(norm.bias) if bias is None else bias.to(x.dtype)
    return ACTIVATIONS[activation](norm(module(x)))


def conv2d_bias_act(x: Tensor, x2: Tensor | None, *arguments: Any) -> Tensor:
    return conv(x if x2 is None else torch.cat((x, x2), 1), *arguments)


POINTWISE = ((1, 1), (0, 0), (1, 1))


def depthwise_separable_conv2d(x: Tensor, *arguments: Any) -> Tensor:
    depthwise, pointwise, geometry, activations = arguments[:3], arguments[3:6], arguments[6:9], arguments[9:]
    return conv(conv(x, *depthwise, *geometry, activations[0]), *pointwise, *POINTWISE, activations[1])


def inverted_residual(x: Tensor, *arguments: Any) -> Tensor:
    expand, depthwise, project = arguments[:3], arguments[3:6], arguments[6:9]
    stride, dilation, residual, activation = arguments[9:]
    y = conv(x, *expand, *POINTWISE, activation)
    y = conv(y, *depthwise, stride, dilation, dilation, activation)  # a 3x3 window: the padding is the dilation
    y = conv(y, *project, *POINTWISE, "none")
    return y + x if residual else y


def classifier_head(
    x: Tensor, weight: Tensor, scale: Any, bias: Any, linear: Tensor, linear_bias: Any, activation: str
) -> Tensor:
    pooled = nn.AdaptiveAvgPool2d(1)(conv(x, weight, scale, bias, *POINTWISE, activation)).flatten(1)
    return nn.functional.linear(pooled, linear, linear_bias)


def aspp(x: Tensor, *arguments: Any) -> Tensor:
    pointwise, atrous, pool, project = arguments[:3], arguments[3:6], arguments[6:9], arguments[9:12]
    rates, activation = arguments[12:]
    branches = [conv(x, *pointwise, *POINTWISE, activation)]
    for i, rate in enumerate(rates):
        own = [None if p is None else p[i] for p in atrous]
        branches.append(conv(x, *own, (1, 1), (rate, rate), (rate, rate), activation))
    pooled = conv(nn.AdaptiveAvgPool2d(1)(x), *pool, *POINTWISE, activation)
    branches.append(nn.functional.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=False))
    return conv(torch.cat(branches, 1), *project, *POINTWISE, activation)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention by its definition (arXiv 1706.03762, equation 1), over (heads, tokens, size)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return torch.softmax(scores, -1) @ value


def transformer_layer(tokens: Tensor, heads: int, eps: float, activation: str, parameters: Sequence[Any]) -> Tensor:
    """One pre-norm layer over the tokens (tokens, width) of one sequence."""
    n1w, n1b, qkv_w, qkv_b, proj_w, proj_b, n2w, n2b, fc1_w, fc1_b, fc2_w, fc2_b = parameters
    width = (tokens.shape[-1],)
    normed = nn.functional.layer_norm(tokens, width, n1w, n1b, eps)
    biases = (None, None, None) if qkv_b is None else qkv_b.chunk(3)
    query, key, value = (nn.functional.linear(normed, w, b) for w, b in zip(qkv_w.chunk(3), biases, strict=True))
    split = [t.unflatten(-1, (heads, -1)).transpose(0, 1) for t in (query, key, value)]  # (heads, tokens, size)
    tokens = tokens + nn.functional.linear(attention(*split).transpose(0, 1).flatten(1), proj_w, proj_b)
    hidden = nn.functional.linear(nn.functional.layer_norm(tokens, width, n2w, n2b, eps), fc1_w, fc1_b)
    return tokens + nn.functional.linear(ACTIVATIONS[activation](hidden), fc2_w, fc2_b)


def mobilevit_transformer(x: Tensor, in_weight: Tensor, in_bias: Any, *arguments: Any) -> Tensor:
    """Sequence by sequence: the pixels at one position of all patches, picked by slicing."""
    layers, (norm_w, norm_b, out_weight, out_scale, out_bias) = arguments[:12], arguments[12:17]
    heads, (ph, pw), eps, mlp_activation, out_activation = arguments[17:]
    y = conv(x, in_weight, None, in_bias, *POINTWISE, "none")
    height, width = y.shape[2:]
    whole = (math.ceil(height / ph) * ph, math.ceil(width / pw) * pw)
    if whole != (height, width):
        y = nn.functional.interpolate(y, whole, mode="bilinear", align_corners=False)
    result = torch.empty_like(y)
    for image in range(len(y)):
        for i in range(ph):
            for j in range(pw):
                pixels = y[image, :, i::ph, j::pw]  # (width, rows, columns)
                tokens = pixels.flatten(1).T
                for layer in range(len(layers[0])):
                    own = [None if p is None else p[layer] for p in layers]
                    tokens = transformer_layer(tokens, heads, eps, mlp_activation, own)
                tokens = nn.functional.layer_norm(tokens, (tokens.shape[-1],), norm_w, norm_b, eps)
                result[image, :, i::ph, j::pw] = tokens.T.reshape(pixels.shape)
    if whole != (height, width):
        result = nn.functional.interpolate(result, (height, width), mode="bilinear", align_corners=False)
    return conv(result, out_weight, out_scale, out_bias, *POINTWISE, out_activation)


COMPOSITIONS: dict[str, Callable[..., Tensor]] = {
    "aspp": aspp,
    "depthwise_conv2d": conv,
    "depthwise_separable_conv2d": depthwise_separable_conv2d,
    "inverted_residual": inverted_residual,
    "conv2d_bias_act": conv2d_bias_act,
    "mobilevit_transformer": mobilevit_transformer,
    "classifier_head": classifier_head,
}
"""By the name of the operator; arguments as in its schema."""
