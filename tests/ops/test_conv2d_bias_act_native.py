"""The C++ dense convolution in every variant that this machine can run, against float64."""

from __future__ import annotations

import functools
import math
import zlib
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mobilevit_fast.ops import OPS
from testing.threads import using_threads
from testing.tolerance import assert_within_twice, close
from tests.ops.variants import DTYPES, ISAS, called, strided, using_isa

ACTIVATIONS = {"none": lambda y: y, "relu": F.relu, "silu": F.silu}


class Case(NamedTuple):
    """Sizes of one convolution; the window is square."""

    batch: int
    channels: int
    channels2: int
    outputs: int
    height: int
    width: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    activation: str


STEM = Case(1, 3, 0, 16, 64, 64, 3, 2, 1, 1, "silu")
TWO_INPUTS = Case(2, 24, 24, 24, 9, 11, 3, 1, 1, 1, "silu")
FUSION = Case(3, 128, 128, 128, 8, 8, 3, 1, 1, 1, "silu")
DILATED = Case(1, 128, 0, 128, 16, 16, 3, 1, 2, 2, "silu")  # output stride 16
POINTWISE = Case(2, 160, 0, 256, 8, 8, 1, 1, 0, 1, "relu")
STRIDED_POINTWISE = Case(2, 40, 0, 21, 9, 8, 1, 2, 0, 1, "none")
ASPP = [Case(1, 160, 0, 64, 16, 16, 3, 1, rate, rate, "relu") for rate in (6, 12, 18)]
CASES = [
    *(STEM, TWO_INPUTS, FUSION, DILATED, POINTWISE, STRIDED_POINTWISE, *ASPP),
    Case(2, 3, 0, 16, 33, 47, 3, 2, 1, 1, "silu"),  # a stem whose last tiles overlap
    Case(2, 3, 0, 16, 17, 9, 3, 2, 1, 1, "silu"),  # narrower than a tile of the stem
    Case(1, 48, 0, 48, 16, 16, 3, 1, 1, 1, "silu"),  # XXS
    Case(1, 64, 64, 64, 8, 8, 3, 1, 1, 1, "silu"),
    Case(1, 80, 0, 80, 12, 8, 3, 1, 1, 1, "silu"),  # XS
    Case(1, 96, 0, 96, 16, 16, 3, 1, 1, 1, "silu"),  # S
    Case(1, 96, 96, 96, 16, 16, 3, 1, 1, 1, "silu"),
    Case(1, 160, 0, 160, 8, 8, 3, 1, 1, 1, "silu"),
    Case(1, 160, 160, 160, 8, 8, 3, 1, 1, 1, "silu"),
    Case(1, 160, 160, 64, 16, 16, 3, 1, 4, 4, "silu"),  # output stride 8
    Case(1, 320, 0, 40, 16, 16, 1, 1, 0, 1, "none"),
    Case(1, 32, 48, 64, 9, 7, 1, 1, 0, 1, "none"),
    Case(1, 24, 0, 17, 6, 5, 1, 1, 1, 1, "silu"),
    Case(2, 20, 0, 33, 13, 10, 5, 3, 4, 1, "none"),
    Case(1, 5, 7, 3, 9, 50, 3, 2, 1, 2, "relu"),
    Case(1, 60, 0, 80, 3, 2, 3, 1, 1, 1, "silu"),  # fewer rows than threads
    Case(3, 1, 0, 1, 4, 4, 4, 1, 9, 1, "none"),  # outputs that see nothing but padding
]


def name(case: Case) -> str:
    return "x".join(map(str, case))


def kernel(x: Tensor, x2: Tensor | None, weight: Tensor, *arguments: Any) -> Tensor:
    """The operator, with NaN in the memory that the result is likely to get."""
    poison = torch.full((x.shape[0], weight.shape[0], *x.shape[2:]), math.nan, dtype=x.dtype)
    del poison
    return OPS["conv2d_bias_act"].run("cpu", (x, x2, weight, *arguments))


def plain(
    x: Tensor,
    x2: Tensor | None,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    activation: str,
) -> Tensor:
    """The same in plain PyTorch, in the type of ``x``."""
    x = x if x2 is None else torch.cat((x, x2), 1).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x, weight.to(x.dtype), None, stride, padding, dilation)
    y = y if scale is None else y * scale.to(x.dtype)[:, None, None]
    return ACTIVATIONS[activation](y if bias is None else y + bias.to(x.dtype)[:, None, None])


@functools.cache
def sample(case: Case, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """Arguments of the operator, images in channels_last order."""
    make = functools.partial(torch.randn, generator=torch.Generator().manual_seed(zlib.crc32(repr(case).encode())))
    n, c, c2, o, h, w, k = case[:7]
    x, x2 = (
        make(n, channels, h, w).to(dtype).contiguous(memory_format=torch.channels_last) if channels else None
        for channels in (c, c2)
    )
    weight = (make(o, c + c2, k, k) / (k * k * (c + c2)) ** 0.5).to(dtype)
    geometry = ([value] * 2 for value in case[7:10])
    return (x, x2, weight, 1 + 0.2 * make(o), make(o).to(dtype), *geometry, case.activation)


def with_images(images: tuple[Tensor | None, ...], dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    return tuple(None if image is None else image.to(dtype) for image in images)


@functools.cache
def expected(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """PyTorch's result in ``dtype`` and in float64."""
    arguments = sample(case, dtype)
    return plain(*arguments), plain(*with_images(arguments[:2], torch.float64), *arguments[2:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_error_is_at_most_twice_that_of_pytorch(isa: str, case: Case, dtype: torch.dtype) -> None:
    result = kernel(*sample(case, dtype))
    assert_within_twice(result, *expected(case, dtype))
    _, c, h, w = result.shape
    assert result.dtype == dtype
    assert result.stride() == (h * w * c, 1, w * c, c)


SIZE, STEP = st.integers(1, 12), st.integers(1, 4)
WINDOW = (STEP, STEP, st.integers(0, 9), st.integers(1, 7))  # size, stride, padding, dilation


@settings(max_examples=400)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(0, 18), st.integers(1, 40), SIZE, SIZE),
    window=st.tuples(*(st.tuples(value, value) for value in WINDOW)),
    activation=st.sampled_from(tuple(ACTIVATIONS)),
    rgb=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_any_geometry(
    shape: tuple[int, ...], window: tuple[Any, ...], activation: str, rgb: bool, dtype: torch.dtype
) -> None:
    n, c, c2, o, h, w = (shape[0], 3, 0, *shape[3:]) if rgb else shape
    kernel_size, stride, padding, dilation = window
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True)]
    padding = [max(p, (r - s + 1) // 2) for p, r, s in zip(padding, reach, (h, w), strict=True)]  # so that it fits
    x, x2 = torch.randn(n, c, h, w).to(dtype), torch.randn(n, c2, h, w).to(dtype) if c2 else None
    weight = torch.randn(o, c + c2, *kernel_size).to(dtype)
    arguments = (None, torch.randn(o), list(stride), padding, list(dilation), activation)
    exact = plain(*with_images((x, x2), torch.float64), weight.double(), *arguments)
    for isa in ISAS:
        with using_isa(isa):
            close(kernel(x, x2, weight, *arguments), exact)


@settings(max_examples=200)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(32, 70), st.integers(0, 40), st.integers(32, 100), SIZE, SIZE),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    activation=st.sampled_from(tuple(ACTIVATIONS)),
    dtype=st.sampled_from(DTYPES),
)
def test_any_image_under_a_dense_window(
    shape: tuple[int, ...], padding: tuple[int, int], activation: str, dtype: torch.dtype
) -> None:
    """Windows of 3x3 without stride and dilation go another way where channels are many."""
    n, c, c2, o, h, w = shape
    padding = tuple(max(p, (3 - size + 1) // 2) for p, size in zip(padding, (h, w), strict=True))
    x, x2 = torch.randn(n, c, h, w).to(dtype), torch.randn(n, c2, h, w).to(dtype) if c2 else None
    weight = torch.randn(o, c + c2, 3, 3).to(dtype)
    arguments = (weight, torch.randn(o), torch.randn(o), [1, 1], list(padding), [1, 1], activation)
    exact = plain(*with_images((x, x2), torch.float64), weight.double(), *arguments[1:])
    for isa in ISAS:
        with using_isa(isa):
            close(kernel(x, x2, *arguments), exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [STEM, TWO_INPUTS, FUSION, DILATED, STRIDED_POINTWISE], ids=name)
def test_every_layout_gives_the_same(isa: str, case: Case, dtype: torch.dtype) -> None:
    x, x2, *rest = sample(case, dtype)
    result = kernel(x, x2, *rest)
    for name, other in strided(x).items():
        assert torch.equal(kernel(other, x2, *rest), result), name
    for name, other in strided(x2).items() if x2 is not None else ():
        assert torch.equal(kernel(x, other, *rest), result), name
    weight, scale, bias, *geometry = rest
    spread = (weight.contiguous(memory_format=torch.channels_last), scale.repeat_interleave(2)[::2], bias.float())
    assert torch.equal(kernel(x, x2, *spread, *geometry), result)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [(2, 1), (24, 40), (4, 60)])
def test_the_two_inputs_may_be_parts_of_one_image(isa: str, channels: tuple[int, int], dtype: torch.dtype) -> None:
    """A pixel of each is then as far from the next as pixels of the image, but has fewer channels."""
    whole = torch.randn(2, sum(channels), 7, 9).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(16, sum(channels), 3, 3).to(dtype)
    arguments = (weight, None, None, [1, 1], [1, 1], [1, 1], "silu")
    first, second = whole.split(channels, 1)
    assert torch.equal(kernel(first, second, *arguments), kernel(whole, None, *arguments))
    swapped = torch.cat((second, first), 1).contiguous(memory_format=torch.channels_last)
    assert torch.equal(kernel(second, first, *arguments), kernel(swapped, None, *arguments))


@pytest.mark.parametrize("case", [STEM, FUSION, POINTWISE], ids=name)
def test_an_expanded_batch(isa: str, case: Case) -> None:
    x, x2, *rest = sample(case)
    result = kernel(x[:1].expand(3, -1, -1, -1), None if x2 is None else x2[:1].expand(3, -1, -1, -1), *rest)
    one = kernel(x[:1], None if x2 is None else x2[:1], *rest)
    assert all(torch.equal(image, one[0]) for image in result)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_number_of_threads_changes_nothing(isa: str, case: Case) -> None:
    results = []
    for threads in (1, 2, 5, 16):
        with using_threads(threads):
            results.append(kernel(*sample(case)))
    for result in results[1:]:
        assert torch.equal(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_image_that_is_not_finite_stays_alone(isa: str, dtype: torch.dtype) -> None:
    x, x2, *rest = sample(FUSION, dtype)
    x = x.clone()
    x[1, :, 3, 3] = math.nan
    result = kernel(x, x2, *rest)
    touched = torch.zeros(8, 8, dtype=torch.bool)
    touched[2:5, 2:5] = True
    assert torch.equal(result[1].isnan().any(0), touched)
    assert not result[[0, 2]].isnan().any()


def test_infinite_and_huge_inputs_under_a_dense_window(isa: str) -> None:
    """Winograd's sums of inputs make NaN of some infinities, but only where the window sees one."""
    x, x2, *rest = sample(FUSION)
    infinite = x.clone()
    infinite[1, :, 3, 3] = math.inf
    result = kernel(infinite, x2, *rest)
    touched = torch.zeros(8, 8, dtype=torch.bool)
    touched[2:5, 2:5] = True
    assert torch.equal(~result[1].isfinite().all(0), touched)
    assert torch.equal(result[[0, 2]], kernel(x, x2, *rest)[[0, 2]])
    case = FUSION._replace(activation="none")
    x, x2, weight, scale, _, *geometry = sample(case)
    result = kernel(x, x2, weight, scale, None, *geometry)
    assert torch.equal(kernel(x * 2.0**120, x2 * 2.0**120, weight, scale, None, *geometry), result * 2.0**120)


@pytest.mark.parametrize("corner", [(0, 0), (2, 2)])
def test_windows_that_are_zero_but_for_a_corner(isa: str, corner: tuple[int, int]) -> None:
    """The worst case of Winograd's rounding: the documented exception from the rule of twice PyTorch's error."""
    x, x2, weight, *rest = sample(FUSION)
    pruned = torch.zeros_like(weight)
    pruned[:, :, *corner] = 3 * weight[:, :, *corner]
    arguments = (x, x2, pruned, *rest)
    exact = plain(*with_images(arguments[:2], torch.float64), *arguments[2:])
    assert_within_twice(kernel(*arguments), plain(*arguments), exact, factor=2.4)


def test_empty_batch() -> None:
    x, _, *rest = sample(STEM)
    assert kernel(x[:0], None, *rest).shape == (0, 16, 32, 32)


BAD = [
    ("input of shape \\(batch, channels, height, width\\), got 3 dimensions", {"x": torch.zeros(8, 6, 6)}),
    ("input of 8 channels, got 7 \\(x.shape=\\(1, 7, 6, 6\\)\\)", {"x": torch.zeros(1, 7, 6, 6)}),
    ("input of type torch.float32, like the packed weights, got torch.float16", {"x": torch.zeros(1, 8, 6, 6).half()}),
    ("second input of shape \\(1, 2, 6, 6\\), got \\(2, 6, 6\\)", {"x2": torch.zeros(2, 6, 6), "weight": 10}),
    ("second input of shape \\(1, 0, 6, 6\\), got \\(1, 2, 6, 6\\)", {"x2": torch.zeros(1, 2, 6, 6)}),
    ("second input of shape \\(1, 2, 6, 6\\), got \\(1, 2, 6, 5\\)", {"x2": torch.zeros(1, 2, 6, 5), "weight": 10}),
    ("second input of shape \\(1, 2, 6, 6\\), got \\(2, 2, 6, 6\\)", {"x2": torch.zeros(2, 2, 6, 6), "weight": 10}),
    ("second input of type torch.float32", {"x2": torch.zeros(1, 2, 6, 6).bfloat16(), "weight": 10}),
    ("stride of at least 1 in both directions, got \\[0, 1\\]", {"stride": [0, 1]}),
    ("padding of at least 0 in both directions, got \\[0, -1\\]", {"padding": [0, -1]}),
    ("dilation of at least 1 in both directions, got \\[1, 0\\]", {"dilation": [1, 0]}),
    ("an input that holds the 3x3 window at least once", {"dilation": [9, 9]}),
    ("activation none, relu or silu, got 'gelu'", {"activation": "gelu"}),
]


@pytest.mark.parametrize(("message", "change"), BAD, ids=[message for message, _ in BAD])
def test_bad_arguments_are_refused(message: str, change: dict[str, Any]) -> None:
    channels = change.get("weight", 8)
    geometry = [1, 1], [0, 0], [1, 1]
    arguments = (torch.zeros(1, 8, 6, 6), None, torch.zeros(4, channels, 3, 3), None, None, *geometry, "none")
    with pytest.raises(RuntimeError, match=f"^mobilevit_fast.conv2d_bias_act: expected {message}"):
        called("conv2d_bias_act", arguments, **{name: value for name, value in change.items() if name != "weight"})
