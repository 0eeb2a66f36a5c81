"""The C++ atrous spatial pyramid pooling in every variant that this machine can run, against float64."""

from __future__ import annotations

import functools
import math
import zlib
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from testing.threads import using_threads
from testing.tolerance import assert_within_twice, close
from tests.ops.compositions import aspp as composed
from tests.ops.variants import DTYPES, ISAS, called, in_type, run, strided, using_isa

RATES = (6, 12, 18)


class Case(NamedTuple):
    """Sizes of one head."""

    batch: int
    channels: int
    features: int
    outputs: int
    height: int
    width: int
    rates: tuple[int, ...] = RATES
    activation: str = "relu"


SMALL = Case(2, 160, 256, 256, 16, 16)  # S, 256 px at output stride 16
ODD = Case(3, 19, 21, 13, 9, 14, (2, 5), "silu")
CASES = [
    SMALL,
    ODD,
    Case(1, 80, 256, 256, 8, 8),  # XXS, 256 px: only the centre of two windows lies inside the image
    Case(1, 96, 64, 64, 32, 32),  # two tiles and more
    Case(1, 40, 48, 40, 64, 20),  # output stride 8: all of all windows, for some pixels
    Case(1, 16, 32, 16, 3, 150, (6, 12, 18), "none"),  # wider than a tile
    Case(2, 8, 5, 70, 1, 1, (1,)),
]


def name(case: Case) -> str:
    return "x".join(map(str, case)).replace(", ", "-")


@functools.cache
def sample(case: Case, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """Arguments of the operator, the image in channels_last order."""
    make = functools.partial(torch.randn, generator=torch.Generator().manual_seed(zlib.crc32(repr(case).encode())))
    n, c, k, o, h, w, rates, activation = case
    r = len(rates)
    x = make(n, c, h, w).contiguous(memory_format=torch.channels_last)
    pointwise = (make(k, c, 1, 1) / c**0.5, 1 + 0.2 * make(k), make(k))
    atrous = (make(r, k, c, 3, 3) / (9 * c) ** 0.5, 1 + 0.2 * make(r, k), make(r, k))
    pool = (make(k, c, 1, 1) / c**0.5, 1 + 0.2 * make(k), make(k))
    project = (make(o, (r + 2) * k, 1, 1) / ((r + 2) * k) ** 0.5, 1 + 0.2 * make(o), make(o))
    return in_type((x, *pointwise, *atrous, *pool, *project, list(rates), activation), dtype)


@functools.cache
def expected(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """PyTorch's result in ``dtype`` and in float64, composed from torch's own modules."""
    arguments = sample(case, dtype)
    with torch.no_grad():
        return composed(*arguments), composed(*in_type(arguments, torch.float64))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_error_is_at_most_twice_that_of_pytorch(case: Case, dtype: torch.dtype, isa: str) -> None:
    with using_isa(isa):
        result = run("aspp", sample(case, dtype))
    assert_within_twice(result, *expected(case, dtype))
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=150)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24)),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 70)),
    rates=st.lists(st.integers(1, 26), min_size=1, max_size=4),
    activation=st.sampled_from(["none", "relu", "silu"]),
    threads=st.sampled_from([1, 2, 5, 16]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_size(
    size: tuple[int, ...],
    channels: tuple[int, ...],
    rates: list[int],
    activation: str,
    threads: int,
    dtype: torch.dtype,
) -> None:
    arguments = sample(Case(size[0], *channels, *size[1:], tuple(rates), activation), dtype)
    exact = composed(*in_type(arguments, torch.float64)).detach()
    for isa in ISAS:
        with using_isa(isa), using_threads(threads):
            close(run("aspp", arguments), exact)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [SMALL, ODD], ids=name)
def test_every_layout_gives_the_same(case: Case, dtype: torch.dtype, isa: str) -> None:
    x, *rest = sample(case, dtype)
    with using_isa(isa):
        result = run("aspp", (x, *rest))
        for layout, other in strided(x).items():
            assert torch.equal(run("aspp", (other, *rest)), result), layout
        expanded = run("aspp", (x[:1].expand(4, -1, -1, -1), *rest))
        assert all(torch.equal(image, result[0]) for image in expanded)
        spread = [
            a.mT.contiguous().mT if isinstance(a, Tensor) and a.dim() == 2 else a for a in rest
        ]  # scales and biases of the rates
        spread[3] = spread[3].permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
        assert torch.equal(run("aspp", (x, *spread)), result)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_number_of_threads_changes_nothing(case: Case, isa: str) -> None:
    results = []
    for threads in (1, 2, 5, 16):
        with using_isa(isa), using_threads(threads):
            results.append(run("aspp", sample(case)))
    for result in results[1:]:
        assert torch.equal(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_image_that_is_not_finite_stays_alone(dtype: torch.dtype) -> None:
    x, *rest = sample(ODD, dtype)
    x = x.clone()
    x[1, :, 3, 1] = math.nan
    result = run("aspp", (x, *rest))
    assert result[1].isnan().all()  # its mean is
    assert not result[[0, 2]].isnan().any()


BAD = [
    ("input of shape \\(batch, channels, height, width\\), got 3 dimensions", {"x": torch.zeros(8, 6, 6)}),
    ("input of 8 channels, got 7 \\(x.shape=\\(1, 7, 6, 6\\)\\)", {"x": torch.zeros(1, 7, 6, 6)}),
    ("input of type torch.float32, like the packed weights, got torch.float16", {"x": torch.zeros(1, 8, 6, 6).half()}),
    ("an image of at least one pixel, got none", {"x": torch.zeros(1, 8, 0, 6)}),
    ("one rate or more, for each of the 2 atrous weights one, got 0", {"rates": []}),
    ("one rate or more, for each of the 2 atrous weights one, got 1", {"rates": [2]}),
    ("rates of at least 1, got 0", {"rates": [2, 0]}),
    ("activation none, relu or silu, got 'gelu'", {"activation": "gelu"}),
]


@pytest.mark.parametrize(("message", "change"), BAD, ids=[message for message, _ in BAD])
def test_bad_arguments_are_refused(message: str, change: dict[str, Any]) -> None:
    shapes = (4, 8, 1, 1), (2, 4, 8, 3, 3), (4, 8, 1, 1), (3, 16, 1, 1)
    weights = [part for shape in shapes for part in (torch.zeros(shape), None, None)]
    with pytest.raises(RuntimeError, match=f"^mobilevit_fast.aspp: expected {message}"):
        called("aspp", (torch.zeros(1, 8, 6, 6), *weights, [2, 4], "none"), **change)
