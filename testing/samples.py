"""Inputs of every operator, made once for tests and benchmarks: real shapes, odd shapes, every layout and option."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    """A name for test reports, and the arguments of the operator's schema in their order."""

    name: str
    arguments: tuple[Any, ...]

    def to(self, dtype: torch.dtype) -> tuple[Any, ...]:
        """The arguments with every tensor in ``dtype``, strides kept."""
        return tuple(a.to(dtype) if isinstance(a, Tensor) else a for a in self.arguments)


class _Maker:
    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self.generator) * scale

    def weight(self, *shape: int) -> Tensor:
        fan_in = max(1, torch.Size(shape[1:]).numel())
        return self(*shape, scale=fan_in**-0.5)

    def scale(self, channels: int) -> Tensor:
        return 1 + 0.2 * self(channels)

    def image(self, batch: int, channels: int, height: int, width: int, layout: str) -> Tensor:
        if layout == "nchw":
            return self(batch, channels, height, width)
        if layout == "channels_last":
            return self(batch, channels, height, width).contiguous(memory_format=torch.channels_last)
        if layout == "sliced":  # every second column of a wider image
            return self(batch, channels, height, 2 * width)[..., ::2]
        raise ValueError(layout)


LAYOUTS = ("channels_last", "nchw", "sliced")


def depthwise_conv2d() -> Iterator[Sample]:
    """Depthwise convolutions: kernel 1, 3, 5, 7, stride, dilation, padding, bias or none, all layouts."""
    make = _Maker(1)
    cases = [
        (2, 32, 17, 13, 3, 1, 1, 1, "silu"),
        (1, 48, 16, 16, 3, 2, 1, 1, "silu"),
        (2, 7, 9, 11, 5, 1, 2, 1, "relu"),
        (1, 96, 12, 12, 3, 1, 4, 4, "none"),
        (1, 64, 14, 9, 7, 2, 3, 1, "silu"),
        (3, 5, 4, 4, 1, 1, 0, 1, "none"),
        (1, 16, 3, 3, 3, 1, 0, 1, "relu"),
    ]
    for (n, c, h, w, k, s, p, d, act), layout in itertools.product(cases, LAYOUTS):
        bias = None if act == "none" else make(c)
        weight = make.weight(c, 1, k, k)
        scale = None if act == "relu" else make.scale(c)
        arguments = (make.image(n, c, h, w, layout), weight, scale, bias, [s, s], [p, p], [d, d], act)
        yield Sample(f"c{c}-k{k}-s{s}-d{d}-{act}-{layout}", arguments)


def depthwise_separable_conv2d() -> Iterator[Sample]:
    """Depthwise separable convolutions with and without biases."""
    make = _Maker(2)
    cases = [
        (2, 16, 24, 13, 9, 3, 1, 1, 1, "silu", "none"),
        (1, 32, 8, 16, 16, 3, 2, 1, 1, "relu", "silu"),
        (1, 8, 16, 11, 7, 5, 1, 4, 2, "none", "none"),
    ]
    for (n, c, o, h, w, k, s, p, d, act1, act2), layout in itertools.product(cases, LAYOUTS):
        biases = (None, None) if act1 == "none" else (make(c), make(o))
        x = make.image(n, c, h, w, layout)
        scale = make.scale(o) if act1 == "relu" else None
        weights = (make.weight(c, 1, k, k), make.scale(c), biases[0], make.weight(o, c, 1, 1), scale, biases[1])
        yield Sample(f"c{c}-o{o}-k{k}-s{s}-{act1}-{act2}-{layout}", (x, *weights, [s, s], [p, p], [d, d], act1, act2))


def inverted_residual() -> Iterator[Sample]:
    """Inverted residuals of all three sizes' channel counts on small images: stride 1 and 2, dilation, residual."""
    make = _Maker(3)
    cases = [
        (1, 16, 32, 16, 12, 12, 1, 1, True, "silu"),
        (2, 16, 64, 32, 9, 7, 1, 1, False, "silu"),
        (1, 32, 128, 64, 13, 10, 2, 1, False, "silu"),
        (1, 64, 256, 64, 8, 8, 1, 1, True, "silu"),
        (1, 96, 384, 128, 8, 8, 1, 2, False, "silu"),
        (1, 8, 24, 8, 10, 6, 1, 4, True, "relu"),
    ]
    for (n, c, e, o, h, w, s, d, residual, act), layout in itertools.product(cases, LAYOUTS[:2]):
        x = make.image(n, c, h, w, layout)
        expand, depthwise, project = make.weight(e, c, 1, 1), make.weight(e, 1, 3, 3), make.weight(o, e, 1, 1)
        scales = (None,) * 3 if act == "relu" else (make.scale(e), make.scale(e), make.scale(o))
        weights = (expand, scales[0], make(e), depthwise, scales[1], make(e), project, scales[2], make(o))
        yield Sample(f"c{c}-e{e}-o{o}-s{s}-d{d}-{act}-{layout}", (x, *weights, [s, s], [d, d], residual, act))


def conv2d_bias_act() -> Iterator[Sample]:
    """Dense convolutions: the stem, 1x1, 3x3 with dilation, one input and two."""
    make = _Maker(4)
    cases = [
        (2, 3, 0, 16, 15, 17, 3, 2, 1, 1, "silu"),
        (1, 24, 0, 64, 9, 9, 1, 1, 0, 1, "none"),
        (1, 16, 16, 16, 8, 10, 3, 1, 1, 1, "silu"),
        (1, 12, 20, 8, 7, 5, 3, 1, 1, 1, "relu"),
        (1, 16, 0, 12, 16, 16, 3, 1, 6, 6, "relu"),
    ]
    for (n, c1, c2, o, h, w, k, s, p, d, act), layout in itertools.product(cases, LAYOUTS):
        x2 = make.image(n, c2, h, w, layout) if c2 else None
        bias = None if act == "none" else make(o)
        x, weight = make.image(n, c1, h, w, layout), make.weight(o, c1 + c2, k, k)
        scale = None if c2 == 20 else make.scale(o)
        yield Sample(
            f"c{c1}+{c2}-o{o}-k{k}-s{s}-d{d}-{act}-{layout}", (x, x2, weight, scale, bias, [s, s], [p, p], [d, d], act)
        )


def mobilevit_transformer() -> Iterator[Sample]:
    """Transformer stacks: widths of the three sizes, patches 2, 4 and 1, sizes that are no multiple of the patch."""
    make = _Maker(5)
    cases = [
        (1, 48, 64, 2, 4, (8, 8), (2, 2), True),
        (2, 24, 96, 1, 4, (6, 10), (2, 2), True),
        (1, 16, 144, 1, 4, (4, 4), (2, 2), False),
        (1, 8, 20, 2, 2, (7, 9), (2, 2), True),
        (1, 8, 24, 1, 3, (8, 12), (4, 2), False),
        (1, 8, 16, 1, 1, (5, 3), (1, 1), True),
    ]
    for (n, c, d, layers, heads, (h, w), patch, biased), layout in itertools.product(cases, LAYOUTS[:2]):
        m = 2 * d
        attention = (
            1 + 0.1 * make(layers, d),
            0.1 * make(layers, d),
            torch.stack([make.weight(3 * d, d) for _ in range(layers)]),
            make(layers, 3 * d) if biased else None,
            torch.stack([make.weight(d, d) for _ in range(layers)]),
            0.1 * make(layers, d),
        )
        mlp = (
            1 + 0.1 * make(layers, d),
            0.1 * make(layers, d),
            torch.stack([make.weight(m, d) for _ in range(layers)]),
            0.1 * make(layers, m),
            torch.stack([make.weight(d, m) for _ in range(layers)]),
            0.1 * make(layers, d),
        )
        ends = (1 + 0.1 * make(d), 0.1 * make(d), make.weight(c, d, 1, 1))
        out = (make.scale(c), make(c)) if biased else (None, None)
        weights = (make.weight(d, c, 1, 1), make(d) if biased else None, *attention, *mlp, *ends, *out)
        settings = (heads, list(patch), 1e-5, "silu", "silu")
        name = f"c{c}-d{d}-l{layers}-h{heads}-{h}x{w}-p{patch[0]}{patch[1]}-{layout}"
        yield Sample(name, (make.image(n, c, h, w, layout), *weights, *settings))


def sharpened(arguments: tuple[Any, ...], factor: float) -> tuple[Any, ...]:
    """Those of a ``mobilevit_transformer`` whose queries and keys, and so the roots of its scores, are larger."""
    changed = list(arguments)
    for position in (5, 6):  # query, key and value: weights and biases
        if changed[position] is not None:
            changed[position] = changed[position].clone()
            changed[position][:, : 2 * changed[position].shape[1] // 3] *= factor
    return tuple(changed)


def classifier_head() -> Iterator[Sample]:
    """Classifier heads with and without biases."""
    make = _Maker(6)
    cases = [(2, 80, 320, 10, 8, 8, True), (1, 96, 384, 21, 5, 7, False), (3, 16, 24, 3, 1, 1, True)]
    for (n, c, e, k, h, w, biased), layout in itertools.product(cases, LAYOUTS):
        biases = (make(e), make(k)) if biased else (None, None)
        weights = (make.weight(e, c, 1, 1), make.scale(e) if biased else None, biases[0], make.weight(k, e), biases[1])
        yield Sample(f"c{c}-e{e}-k{k}-{h}x{w}-{layout}", (make.image(n, c, h, w, layout), *weights, "silu"))


def aspp() -> Iterator[Sample]:
    """Segmentation heads: one to four rates, within the image and beyond it, with norms and biases or without."""
    make = _Maker(7)
    cases = [
        (2, 24, 40, 20, (13, 10), (2, 4, 6), "relu"),
        (1, 80, 64, 64, (12, 12), (6, 12, 18), "relu"),
        (3, 5, 7, 3, (1, 6), (1,), "silu"),
        (1, 16, 12, 24, (9, 7), (3, 5, 1, 9), "none"),
    ]
    for (n, c, k, o, (h, w), rates, act), layout in itertools.product(cases, LAYOUTS):
        r = len(rates)

        def affine(*shape: int, act: str = act) -> tuple[Tensor | None, Tensor | None]:
            return None if act == "silu" else 1 + 0.2 * make(*shape), None if act == "none" else make(*shape)

        atrous = torch.stack([make.weight(k, c, 3, 3) for _ in rates])
        branches = (make.weight(k, c, 1, 1), *affine(k), atrous, *affine(r, k), make.weight(k, c, 1, 1), *affine(k))
        project = (make.weight(o, (r + 2) * k, 1, 1), *affine(o))
        arguments = (make.image(n, c, h, w, layout), *branches, *project, list(rates), act)
        yield Sample(f"c{c}-k{k}-o{o}-r{r}-{h}x{w}-{act}-{layout}", arguments)


SAMPLES: dict[str, Callable[[], Iterator[Sample]]] = {
    "depthwise_conv2d": depthwise_conv2d,
    "depthwise_separable_conv2d": depthwise_separable_conv2d,
    "inverted_residual": inverted_residual,
    "conv2d_bias_act": conv2d_bias_act,
    "mobilevit_transformer": mobilevit_transformer,
    "classifier_head": classifier_head,
    "aspp": aspp,
}
"""The samples of every operator, by its name."""
