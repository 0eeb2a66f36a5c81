"""Least work of a region of the network: MACs, exponentials and bytes, and the time these take on a chip.

Counted from shapes alone, for all images of a call:

- products: MACs (multiply-accumulates) of its convolutions and matrix products by their definition;
- exponentials: one for every sigmoid (of SiLU) and every score of attention;
- unfused bytes: layer by layer, every convolution and matrix product reading its input and writing its output, with
  normalisations, activations, additions and concatenations for nothing beside it, and attention in one piece;
- fused bytes: the images once in and once out;
- bytes of weights, which a batch shares and a cache may hold: they are in no time.

No kernel is as fast as its largest time: depthwise convolutions have no matrix unit, and nothing overlaps for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from mobilevit_fast.ops import OPS

IMAGES = ("x", "x2")
"""Arguments of operators that are no parameters."""
_WITHOUT_EXPONENTIALS = ("none", "relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid")

Named = Mapping[str, Any]


class Step(NamedTuple):
    """A convolution, a matrix product or an attention with all that rides on it; ``read`` and ``written``: elements.

    ``read`` and ``written`` leave out the weights.
    """

    name: str
    products: int
    read: int
    written: int
    exponentials: int = 0


class Work(NamedTuple):
    """Work of a call of an operator, or of several together."""

    products: int
    exponentials: int
    unfused_bytes: int
    fused_bytes: int
    weight_bytes: int

    def times(self, count: int) -> Work:
        """Work of so many calls."""
        return Work(*(count * value for value in self))


def bytes_of(*values: object) -> int:
    """Bytes of the tensors among the values together."""
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def work_of(op: str, named: Named) -> Work:
    """The work of an operator with these arguments, by name; the tensors may be without values."""
    x = named["x"]
    steps = steps_of(op, named)
    written = math.prod(OPS[op].output_shape(*named.values()))
    return Work(
        sum(step.products for step in steps),
        sum(step.exponentials for step in steps),
        x.element_size() * sum(step.read + step.written for step in steps),
        x.element_size() * written + bytes_of(*(named.get(name) for name in IMAGES)),
        bytes_of(*(value for name, value in named.items() if name not in IMAGES)),
    )


def steps_of(op: str, named: Named) -> list[Step]:
    """Steps of an operator, layer by layer."""
    return _STEPS[op](named)


def exponentials_of(activation: str, count: int) -> int:
    """Exponentials of an activation of so many elements."""
    return 0 if activation in _WITHOUT_EXPONENTIALS else count


def _convolution(
    name: str,
    x: int,
    pixels: int,
    weight: Tensor,
    activation: str = "none",
    *,
    read: int | None = None,
    beside: int = 0,
) -> Step:
    """Over ``x`` pixels in and ``pixels`` out, all images together; ``beside`` are elements to add to the result."""
    outputs, inputs, *window = weight.shape
    numbers = outputs * pixels
    read = inputs * x if read is None else read
    exponentials = exponentials_of(activation, numbers)
    return Step(name, inputs * math.prod(window) * numbers, read + beside, numbers, exponentials)


def _depthwise(x: int, pixels: int, weight: Tensor, activation: str) -> Step:
    return _convolution("depthwise", x, pixels, weight, activation, read=weight.shape[0] * x)


def _pixels(named: Named) -> int:
    batch, _, height, width = named["x"].shape
    return int(batch * height * width)


def _strided(named: Named, op: str) -> int:
    batch, _, height, width = OPS[op].output_shape(*named.values())
    return batch * height * width


def _depthwise_conv2d(named: Named) -> list[Step]:
    pixels = _strided(named, "depthwise_conv2d")
    return [_depthwise(_pixels(named), pixels, named["weight"], named["activation"])]


def _depthwise_separable_conv2d(named: Named) -> list[Step]:
    pixels = _strided(named, "depthwise_separable_conv2d")
    return [
        _depthwise(_pixels(named), pixels, named["depthwise_weight"], named["depthwise_activation"]),
        _convolution("pointwise", pixels, pixels, named["pointwise_weight"], named["pointwise_activation"]),
    ]


def _inverted_residual(named: Named) -> list[Step]:
    x, pixels, activation = _pixels(named), _strided(named, "inverted_residual"), named["activation"]
    added = named["x"].numel() if named["residual"] else 0
    return [
        _convolution("expand", x, x, named["expand_weight"], activation),
        _depthwise(x, pixels, named["depthwise_weight"], activation),
        _convolution("project", pixels, pixels, named["project_weight"], beside=added),
    ]


def _conv2d_bias_act(named: Named) -> list[Step]:
    pixels = _strided(named, "conv2d_bias_act")
    return [_convolution("convolution", _pixels(named), pixels, named["weight"], named["activation"])]


def _mobilevit_transformer(named: Named) -> list[Step]:
    """Table 4 and section 3.1 of arXiv 2110.02178: attention between the pixels at one place of all patches."""
    x = named["x"]
    (ph, pw), pixels = named["patch_size"], _pixels(named)
    layers, mlp, width = named["fc1_weight"].shape
    patches = math.ceil(x.shape[2] / ph) * math.ceil(x.shape[3] / pw)
    sequences = x.shape[0] * ph * pw
    tokens = sequences * patches
    numbers, scores = width * tokens, sequences * patches**2
    activated = exponentials_of(named["mlp_activation"], mlp * tokens)
    layer = [
        Step("query, key, value", 3 * width * numbers, numbers, 3 * numbers),
        Step("attention", 2 * width * scores, 3 * numbers, numbers, named["num_heads"] * scores),
        Step("projection", width * numbers, 2 * numbers, numbers),
        Step("first of MLP", mlp * numbers, numbers, mlp * tokens, activated),
        Step("second of MLP", mlp * numbers, mlp * tokens + numbers, numbers),
    ]
    return [
        _convolution("in", pixels, pixels, named["in_weight"]),
        *(layers * layer),
        _convolution("out", pixels, pixels, named["out_weight"], named["out_activation"]),
    ]


def _classifier_head(named: Named) -> list[Step]:
    expand, weight, images = named["expand_weight"], named["weight"], named["x"].shape[0]
    step = _convolution("expand, pool", _pixels(named), _pixels(named), expand, named["activation"])
    return [step._replace(written=images * expand.shape[0]), _convolution("linear", images, images, weight)]


def _aspp(named: Named) -> list[Step]:
    pixels, images, activation = _pixels(named), named["x"].shape[0], named["activation"]
    features, whole = named["pool_weight"].shape[0], named["x"].numel()
    branches = 1 + len(named["rates"])
    return [
        _convolution("pointwise", pixels, pixels, named["pointwise_weight"], activation),
        *(_convolution("atrous", pixels, pixels, weight, activation) for weight in named["atrous_weight"]),
        _convolution("pool", images, images, named["pool_weight"], activation, read=whole),
        _convolution(
            "project",
            pixels,
            pixels,
            named["project_weight"],
            activation,
            read=features * (branches * pixels + images),  # what was pooled is one element for a whole image
        ),
    ]


_STEPS: dict[str, Callable[[Named], list[Step]]] = {
    "depthwise_conv2d": _depthwise_conv2d,
    "depthwise_separable_conv2d": _depthwise_separable_conv2d,
    "inverted_residual": _inverted_residual,
    "conv2d_bias_act": _conv2d_bias_act,
    "mobilevit_transformer": _mobilevit_transformer,
    "classifier_head": _classifier_head,
    "aspp": _aspp,
}


class Floor(NamedTuple):
    """Seconds that each part of some work takes by itself; None where the chip's rate is not known."""

    memory: float
    products: float
    exponentials: float | None

    @property
    def least(self) -> float:
        """The largest of them."""
        return max(value for value in self if value is not None)

    @property
    def bound(self) -> str:
        """Which of them that is."""
        return next(name for name, value in zip(self._fields, self, strict=True) if value == self.least)


class Chip(NamedTuple):
    """Peak rates of a chip.

    Attributes:
        label: for people.
        bandwidth: bytes of memory a second.
        rates: multiply-accumulates a second, by type.
        processors: multiprocessors, of 16 exponentials a cycle each; 0 where it has none.
        clock: frequency of these, in Hz.
    """

    label: str
    bandwidth: float
    rates: Mapping[str, float]
    processors: int = 0
    clock: float = 0.0

    @property
    def exponentials(self) -> float | None:
        """A second, of the special-function units."""
        return 16 * self.processors * self.clock or None

    def floor(self, work: Work, dtype: str) -> Floor:
        """The times of some work in a type."""
        exponentials = None if self.exponentials is None else work.exponentials / self.exponentials
        return Floor(work.fused_bytes / self.bandwidth, work.products / self.rates[dtype], exponentials)


def _gpu(label: str, bandwidth: float, half: float, single: float, processors: int, clock: float) -> Chip:
    """From TB/s, dense TFLOP/s (two for each MAC) of the matrix units and of float32, and GHz."""
    rates = {"float16": half / 2 * 1e12, "bfloat16": half / 2 * 1e12, "float32": single / 2 * 1e12}
    return Chip(label, bandwidth * 1e12, rates, processors, clock * 1e9)


CHIPS = {
    "a100": _gpu("A100 SXM 80 GB", 2.039, 312, 19.5, 108, 1.41),
    "h100": _gpu("H100 SXM", 3.0, 790, 67, 132, 1.755),
    "h200": _gpu("H200", 4.242, 759.5, 67, 132, 1.755),
    "b200": _gpu("B200", 8.0, 2250, 75, 148, 1.965),
    "l4": _gpu("L4", 0.3, 121, 30.3, 58, 2.04),
    "rtx4090": _gpu("RTX 4090", 1.008, 165.2, 82.6, 128, 2.52),
}
"""By the name in the command line. Measured: bandwidth and float16 of the H100 (3.35 and 989 in its data sheet) and of
the H200 (4.8 and 989; `results/gpu-h200/gpu-ops.json`), and the clock of both under load. All else is from NVIDIA's
data sheets: without sparsity, float16 with float32 accumulators, float32 without TF32, the boost clock."""
