"""C++ kernels on random geometry: odd sizes, any layout and batch, stride, dilation, padding, patches, heads.

Whole numbers leave nothing to rounding: products and sums of small ones are exact in float32, so the result has to be
the float64 one to the last bit, in bfloat16 after one rounding, however few numbers it has. A variant that multiplies
pairs of bfloat16 rounds once more: what the last product takes.
"""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mobilevit_fast import ops
from testing.tolerance import assert_within_twice, close, rms_error
from tests.ops.variants import DTYPES, ISAS, exact_and_plain, in_pairs, in_type, run, using_isa

CHANNELS = st.one_of(st.integers(1, 20), st.sampled_from([24, 31, 32, 33, 48, 64, 65, 80]))
LAYOUTS = st.sampled_from(["channels_last", "nchw", "transposed", "sliced", "window", "one_image"])
SEEDS = st.integers(0, 2**31)
STEPS = st.tuples(st.integers(1, 3), st.integers(1, 3))
# With less, errors are a matter of luck, also PyTorch's; layer norms of one or two inputs divide by next to nothing.
MIN_NUMBERS, MIN_PIXELS, MIN_INPUTS = 256, 32, 4
# Number of heads, channels of each. A layer norm over fewer than 16 channels at times divides by next to nothing.
HEADS = st.sampled_from([(1, 16), (1, 23), (2, 8), (2, 13), (3, 7), (3, 17), (4, 4), (4, 9), (5, 5), (8, 2), (16, 1)])


def arranged(x: Tensor, layout: str) -> Tensor:
    """The same numbers in another memory layout, surrounded by NaN where they are part of something larger."""
    n, c, h, w = x.shape
    nan = float("nan")
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return x.mT.contiguous().mT
    if layout == "one_image":
        return x[:1].expand(n, -1, -1, -1)
    if layout == "sliced":  # every second column of a wider image
        wide = torch.full((n, c, h, 2 * w), nan, dtype=x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "window":  # some channels of some pixels, in channels_last
        whole = torch.full((n, c + 5, h + 3, w + 2), nan, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
        part = whole[:, 2 : 2 + c, 1 : 1 + h, 1 : 1 + w]
        return part.copy_(x)
    return x.contiguous()


class Whole:
    """Small whole numbers, and scales that are powers of two."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, largest: int = 1) -> Tensor:
        return torch.randint(-largest, largest + 1, shape, generator=self.generator).float()

    def affine(self, channels: int, present: bool) -> tuple[Tensor | None, Tensor | None]:
        if not present:
            return None, None
        powers = torch.randint(-1, 2, (channels,), generator=self.generator)
        return 2.0**powers, self(channels, largest=4)


def with_rounded_factors(op: str, arguments: tuple[Any, ...]) -> Tensor:
    """The float64 result, had the depthwise convolution given bfloat16."""
    named = dict(zip(ops.OPS[op].argument_names, in_type(arguments, torch.float64), strict=True))

    def parameters(name: str) -> dict[str, Any]:
        return {key: named[f"{name}_{key}"] for key in ("weight", "scale", "bias")} | {"backend": "reference"}

    y, window = named["x"], {key: named[key] for key in ("stride", "dilation")}
    if op == "inverted_residual":
        y = ops.conv2d_bias_act(y, **parameters("expand"), activation=named["activation"])
        kernel = named["depthwise_weight"].shape[2:]
        window["padding"] = [(k - 1) // 2 * d for k, d in zip(kernel, named["dilation"], strict=True)]
        first, second, last = named["activation"], "none", "project"
    else:
        window["padding"] = named["padding"]
        first, second, last = named["depthwise_activation"], named["pointwise_activation"], "pointwise"
    y = ops.depthwise_conv2d(y, **parameters("depthwise"), **window, activation=first)
    y = ops.conv2d_bias_act(y.bfloat16().double(), **parameters(last), activation=second)
    return y + named["x"] if named.get("residual") else y


def assert_exact(op: str, arguments: tuple[Any, ...]) -> None:
    """Every variant gives the float64 result, rounded once, in both types."""
    named = dict(zip(ops.OPS[op].argument_names, arguments, strict=True))
    weights = [named[name] for name in ("expand_weight", "project_weight", "pointwise_weight") if name in named]
    exact = run(op, in_type(arguments, torch.float64), "reference")
    assert exact.numel() == 0 or exact.abs().max() < 2**22, "too large to be exact in float32"
    for dtype in DTYPES:
        for isa in ISAS:
            with using_isa(isa):
                pairs = in_pairs(isa, dtype, *(weight.shape[1] for weight in weights))
                wanted = (with_rounded_factors(op, arguments) if pairs else exact).to(dtype)
                actual = run(op, in_type(arguments, dtype))
            assert actual.stride() == wanted.contiguous(memory_format=torch.channels_last).stride()
            assert torch.equal(actual, wanted), f"{isa} {dtype}"


@settings(max_examples=150)
@given(
    size=st.tuples(st.integers(0, 3), st.integers(1, 14), st.integers(1, 14)),
    channels=st.tuples(CHANNELS, CHANNELS, CHANNELS),
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
    stride=STEPS,
    dilation=STEPS,
    kind=st.sampled_from(["residual", "square", "any"]),
    affine=st.booleans(),
    activation=st.sampled_from(["none", "relu"]),
    layout=LAYOUTS,
    seed=SEEDS,
)
def test_inverted_residual(
    size: tuple[int, int, int],
    channels: tuple[int, int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    kind: str,
    affine: bool,
    activation: str,
    layout: str,
    seed: int,
) -> None:
    n, h, w = size
    inputs, expanded, outputs = channels
    if kind == "residual":
        outputs, stride = inputs, (1, 1)
    if kind != "any":  # the windows of MobileViT, which have a routine of their own
        kernel, dilation, stride = (3, 3), (1, 1), (stride[0], stride[0])
    make = Whole(seed)
    weights = (make(expanded, inputs, 1, 1), make(expanded, 1, *kernel), make(outputs, expanded, 1, 1))
    parameters = [p for weight in weights for p in (weight, *make.affine(len(weight), affine))]
    x = arranged(make(n, inputs, h, w, largest=2), layout)
    assert_exact("inverted_residual", (x, *parameters, [*stride], [*dilation], kind == "residual", activation))


@settings(max_examples=150)
@given(
    size=st.tuples(st.integers(0, 3), st.integers(1, 14), st.integers(1, 14)),
    channels=st.tuples(CHANNELS, CHANNELS),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=STEPS,
    padding=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    dilation=STEPS,
    square=st.booleans(),
    affine=st.booleans(),
    activations=st.tuples(st.sampled_from(["none", "relu"]), st.sampled_from(["none", "relu"])),
    layout=LAYOUTS,
    seed=SEEDS,
)
def test_depthwise_separable_conv2d(
    size: tuple[int, int, int],
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    square: bool,
    affine: bool,
    activations: tuple[str, str],
    layout: str,
    seed: int,
) -> None:
    n, h, w = size
    inputs, outputs = channels
    if square:
        kernel, dilation, stride = (3, 3), (1, 1), (stride[0], stride[0])
    # At least one window fits.
    h = max(h, dilation[0] * (kernel[0] - 1) + 1 - 2 * padding[0])
    w = max(w, dilation[1] * (kernel[1] - 1) + 1 - 2 * padding[1])
    make = Whole(seed)
    weights = (make(inputs, 1, *kernel), make(outputs, inputs, 1, 1))
    parameters = [p for weight in weights for p in (weight, *make.affine(len(weight), affine))]
    x = arranged(make(n, inputs, h, w, largest=2), layout)
    assert_exact("depthwise_separable_conv2d", (x, *parameters, [*stride], [*padding], [*dilation], *activations))


def transformer_arguments(
    x: Tensor, outputs: int, width: int, hidden: int, layers: int, biased: bool, generator: torch.Generator
) -> tuple[Any, ...]:
    """Parameters of a transformer over x, with numbers that keep a signal near 1."""
    inputs = x.shape[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def linear(*shape: int) -> Tensor:
        return normal(*shape) * shape[-1] ** -0.5

    def norm(*shape: int) -> tuple[Tensor, Tensor]:
        return 1 + 0.1 * normal(*shape), 0.1 * normal(*shape)

    def bias(*shape: int) -> Tensor:
        return 0.5 * normal(*shape)

    return (
        x,
        *(linear(width, inputs)[..., None, None], bias(width) if biased else None),
        *norm(layers, width),
        *(linear(layers, 3 * width, width), bias(layers, 3 * width) if biased else None),
        *(linear(layers, width, width), bias(layers, width)),
        *norm(layers, width),
        *(linear(layers, hidden, width), bias(layers, hidden), linear(layers, width, hidden), bias(layers, width)),
        *norm(width),
        linear(outputs, width)[..., None, None],
        *(norm(outputs) if biased else (None, None)),
    )


@settings(max_examples=200)
@given(
    size=st.tuples(st.integers(0, 3), st.integers(1, 14), st.integers(1, 14)),
    # Tokens of one channel are multiples of one vector, which a layer norm tells apart by its epsilon alone.
    channels=st.tuples(CHANNELS.filter(lambda channels: channels > 1), CHANNELS),
    patch=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    heads=HEADS,
    hidden=st.integers(1, 70),
    layers=st.integers(1, 2),
    biased=st.booleans(),
    activations=st.tuples(st.sampled_from(["relu", "silu"]), st.sampled_from(["none", "relu", "silu"])),
    layout=LAYOUTS,
    seed=SEEDS,
)
@example((1, 14, 14), (20, 24), (1, 1), (4, 16), 60, 2, True, ("silu", "silu"), "channels_last", 0)  # 196 tokens
@example((3, 14, 14), (20, 24), (4, 4), (2, 9), 60, 2, True, ("silu", "none"), "nchw", 0)  # resized, 16 tokens
def test_mobilevit_transformer(
    size: tuple[int, int, int],
    channels: tuple[int, int],
    patch: tuple[int, int],
    heads: tuple[int, int],
    hidden: int,
    layers: int,
    biased: bool,
    activations: tuple[str, str],
    layout: str,
    seed: int,
) -> None:
    n, h, w = size
    inputs, outputs = channels
    generator = torch.Generator().manual_seed(seed)
    x = arranged(torch.randn(n, inputs, h, w, generator=generator), layout)
    arguments = transformer_arguments(x, outputs, heads[0] * heads[1], hidden, layers, biased, generator)
    arguments = (*arguments, heads[0], [*patch], 1e-5, *activations)
    for dtype in DTYPES:
        given_type = in_type(arguments, dtype)
        if n > 0:  # PyTorch's attention refuses an empty batch
            exact, plain = exact_and_plain("mobilevit_transformer", given_type)
        for isa in ISAS:
            with using_isa(isa):
                actual = run("mobilevit_transformer", given_type)
            assert actual.shape == (n, outputs, h, w)
            assert actual.stride() == (outputs * h * w, 1, w * outputs, outputs)
            if n == 0:
                continue
            different = exact[:1] if layout == "one_image" else exact
            many = different.count_nonzero() >= MIN_NUMBERS and different[:, 0].numel() >= MIN_PIXELS
            if dtype == torch.bfloat16:
                assert_within_twice(actual, plain, exact)
            elif many and inputs >= MIN_INPUTS:
                # The largest error is that of one token, the one whose layer norms divide by least.
                assert_within_twice(actual, plain, exact, measure=rms_error)
            else:
                close(actual, exact)
