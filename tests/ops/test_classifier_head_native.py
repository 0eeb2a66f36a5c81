"""The C++ classifier head in every variant that this machine can run, against float64."""

from __future__ import annotations

import functools
import math
from typing import Any

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

# batch, channels, expanded channels, classes, height, width, activation
CASES = [
    (1, 80, 320, 1000, 8, 8, "silu"),  # XXS
    (2, 96, 384, 1000, 8, 8, "silu"),  # XS
    (1, 160, 640, 1000, 8, 8, "silu"),  # S
    (7, 160, 640, 1000, 4, 4, "silu"),
    (3, 96, 384, 101, 7, 9, "relu"),
    (1, 40, 72, 90, 20, 13, "none"),  # several chunks of pixels, the last one short
    (70, 8, 50, 77, 1, 1, "silu"),  # more images than are classified at a time
]


def kernel(x: Tensor, expand_weight: Tensor, scale: Any, bias: Any, weight: Tensor, *arguments: Any) -> Tensor:
    """The operator, with NaN in the memory that the means and the result are likely to get."""
    poison = torch.full((x.shape[0], weight.shape[0]), math.nan, dtype=x.dtype)
    poisoned_means = torch.full((x.shape[0] * ((weight.shape[1] + 15) // 16 * 16),), math.nan)
    del poison, poisoned_means
    return OPS["classifier_head"].run("cpu", (x, expand_weight, scale, bias, weight, *arguments))


def plain(
    x: Tensor,
    expand_weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    weight: Tensor,
    linear_bias: Tensor | None,
    activation: str,
) -> Tensor:
    """The same in plain PyTorch, in the type of ``x``."""
    y = F.conv2d(x, expand_weight.to(x.dtype))
    y = y if scale is None else y * scale.to(x.dtype)[:, None, None]
    y = y if bias is None else y + bias.to(x.dtype)[:, None, None]
    pooled = ACTIVATIONS[activation](y).mean((2, 3))
    return F.linear(pooled, weight.to(x.dtype), None if linear_bias is None else linear_bias.to(x.dtype))


@functools.cache
def sample(case: tuple[Any, ...], dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """Arguments of the operator, the image in channels_last order."""
    n, c, e, k, h, w, activation = case
    make = functools.partial(torch.randn, generator=torch.Generator().manual_seed(n * c * e * h))
    x = make(n, c, h, w).to(dtype).contiguous(memory_format=torch.channels_last)
    expansion = ((make(e, c, 1, 1) / c**0.5).to(dtype), 1 + 0.2 * make(e), make(e).to(dtype))
    return (x, *expansion, (make(k, e) / e**0.5).to(dtype), make(k).to(dtype), activation)


@functools.cache
def expected(case: tuple[Any, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """PyTorch's result in ``dtype`` and in float64."""
    x, *rest = sample(case, dtype)
    return plain(x, *rest), plain(x.double(), *rest)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case)))
def test_error_is_at_most_twice_that_of_pytorch(isa: str, case: tuple[Any, ...], dtype: torch.dtype) -> None:
    result = kernel(*sample(case, dtype))
    assert_within_twice(result, *expected(case, dtype))
    assert result.dtype == dtype
    assert result.is_contiguous()


@settings(max_examples=60)
@given(
    sizes=st.tuples(
        st.integers(1, 6),
        st.integers(1, 40),
        st.integers(1, 150),
        st.integers(1, 150),
        st.integers(1, 15),
        st.integers(1, 15),
    ),
    activation=st.sampled_from(tuple(ACTIVATIONS)),
    biased=st.booleans(),
)
def test_any_size(sizes: tuple[int, ...], activation: str, biased: bool) -> None:
    n, c, e, k, h, w = sizes
    x = torch.randn(n, c, h, w)
    biases = (torch.randn(e), torch.randn(k)) if biased else (None, None)
    rest = (torch.randn(e, c, 1, 1), None, biases[0], torch.randn(k, e), biases[1], activation)
    exact = plain(x.double(), *rest)
    # The mean of a few channels may be next to nothing.
    without_signs = [a.abs() if isinstance(a, torch.Tensor) else a for a in rest[:-1]]
    terms = plain(x.abs().double(), *without_signs, "none").max().item()
    for isa in ISAS:
        with using_isa(isa):
            close(kernel(x, *rest), exact, terms)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_layout_gives_the_same(isa: str, dtype: torch.dtype) -> None:
    x, expand_weight, scale, bias, weight, linear_bias, activation = sample(CASES[4], dtype)
    rest = (expand_weight, scale, bias, weight, linear_bias, activation)
    result = kernel(x, *rest)
    for name, other in strided(x).items():
        assert torch.equal(kernel(other, *rest), result), name
    expanded = kernel(x[:1].expand(4, -1, -1, -1), *rest)
    assert all(torch.equal(logits, result[0]) for logits in expanded)
    spread = (scale.repeat_interleave(2)[::2], bias.float(), weight.t().contiguous().t(), linear_bias.float())
    assert torch.equal(kernel(x, expand_weight, *spread, activation), result)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case)))
def test_the_number_of_threads_changes_nothing(isa: str, case: tuple[Any, ...]) -> None:
    results = []
    for threads in (1, 2, 5, 16):
        with using_threads(threads):
            results.append(kernel(*sample(case)))
    for result in results[1:]:
        assert torch.equal(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_image_that_is_not_finite_stays_alone(isa: str, dtype: torch.dtype) -> None:
    x, *rest = sample(CASES[3], dtype)
    x = x.clone()
    x[2, :, 3, 1] = math.nan
    result = kernel(x, *rest)
    assert result[2].isnan().all()
    assert not result[[0, 1, 3, 4, 5, 6]].isnan().any()


def test_empty_batch() -> None:
    x, *rest = sample(CASES[0])
    assert kernel(x[:0], *rest).shape == (0, 1000)


BAD = [
    ("input of shape \\(batch, channels, height, width\\), got 3 dimensions", {"x": torch.zeros(8, 6, 6)}),
    ("input of 8 channels, got 7 \\(x.shape=\\(1, 7, 6, 6\\)\\)", {"x": torch.zeros(1, 7, 6, 6)}),
    ("input of type torch.float32, like the packed weights, got torch.float16", {"x": torch.zeros(1, 8, 6, 6).half()}),
    ("an image of at least one pixel, got none", {"x": torch.zeros(1, 8, 0, 6)}),
    ("activation none, relu or silu, got 'gelu'", {"activation": "gelu"}),
]


@pytest.mark.parametrize(("message", "change"), BAD, ids=[message for message, _ in BAD])
def test_bad_arguments_are_refused(message: str, change: dict[str, Any]) -> None:
    arguments = (torch.zeros(1, 8, 6, 6), torch.zeros(12, 8, 1, 1), None, None, torch.zeros(20, 12), None, "none")
    with pytest.raises(RuntimeError, match=f"^mobilevit_fast.classifier_head: expected {message}"):
        called("classifier_head", arguments, **change)
