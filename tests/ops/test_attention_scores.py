"""Attention whose scores are large: up to a million by the rule for errors, and on to where float32 ends."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from testing.samples import SAMPLES, Sample, sharpened
from testing.tiers import thorough
from testing.tolerance import assert_within_twice, max_error, rms_error
from tests.ops.variants import DTYPES, ISAS, OF_PAIRS, dense, exact_and_plain, run

OP = "mobilevit_transformer"
STACKS = [sample for sample in SAMPLES[OP]() if sample.name.endswith("channels_last")]
WHOLE = [sample for sample in STACKS if "7x9" not in sample.name]
"""Those of images that are whole patches: resizing would spread a pixel further."""
FACTORS = [1000.0, thorough(2e4), 4e4, thorough(1e8), 3e14]
"""Of queries and keys: scores are about the squares, 1e6 to 1e29; one key takes all the weight."""


class Expected(NamedTuple):
    """Arguments, their result in float64 and PyTorch's."""

    arguments: tuple[Any, ...]
    exact: Tensor
    plain: Tensor


def _expected(arguments: tuple[Any, ...]) -> Expected:
    return Expected(arguments, *exact_and_plain(OP, arguments))


@functools.lru_cache(maxsize=1)
def _of_one_key(name: str, factor: float, dtype: torch.dtype) -> Expected:
    (sample,) = [sample for sample in STACKS if sample.name == name]
    return _expected(sharpened(sample.to(dtype), factor))


@functools.lru_cache(maxsize=1)
def _of_several_images(name: str, factor: float, dtype: torch.dtype) -> list[Expected]:
    (sample,) = [sample for sample in STACKS if sample.name == name]
    x, *rest = sample.to(dtype)
    images = (torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(12))
    return [_expected(dense(sharpened((image, *rest), factor))) for image in images]


@functools.lru_cache(maxsize=1)
def _of_near_ties(factor: float) -> list[Expected]:
    def several() -> Iterator[Expected]:
        for seed in range(12):
            generator = torch.Generator().manual_seed(seed)
            for sample in STACKS[:2]:
                x, *rest = sample.arguments
                yield _expected(dense(sharpened((torch.randn(x.shape, generator=generator), *rest), factor)))

    return list(several())


every_variant = pytest.mark.parametrize("isa", ISAS, indirect=True)
"""One after the other for a case, so that it is computed once."""


@every_variant
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("sample", STACKS, ids=[sample.name for sample in STACKS])
def test_one_key_takes_all(sample: Sample, factor: float, dtype: torch.dtype, isa: str) -> None:
    """Few numbers, of which the largest error is a matter of luck: the root mean square decides.

    Where a variant rounds queries and keys to bfloat16, as PyTorch does, that also decides which key it is where two
    nearly tie, and one of them about a whole result: the middle of several images is held to the rule.
    """
    if dtype == torch.float32 or isa not in OF_PAIRS:
        arguments, exact, plain = _of_one_key(sample.name, factor, dtype)
        assert_within_twice(run(OP, arguments), plain, exact, measure=rms_error)
        return
    ratios = [
        rms_error(run(OP, arguments), exact) / rms_error(plain, exact)
        for arguments, exact, plain in _of_several_images(sample.name, factor, dtype)
    ]
    assert statistics.median(ratios) <= 1.5
    assert statistics.geometric_mean(ratios) <= 2.0


@every_variant
@pytest.mark.parametrize("measure", [rms_error, max_error])
@pytest.mark.parametrize("factor", [1.0, 10.0, 30.0, 100.0])
def test_scores_of_which_some_are_nearly_equal(
    factor: float, measure: Callable[[Tensor, Tensor], float], isa: str
) -> None:
    """Softmax turns the rounding of two large scores that nearly tie into errors as large as the values.

    Which scores tie is luck, for PyTorch as for a kernel, and one tie decides about a whole result: so it is the middle
    of several stacks that is held to the rule.
    """
    ratios = []
    for arguments, exact, plain in _of_near_ties(factor):
        smallest = torch.finfo(torch.float32).tiny
        found, allowed = (max(measure(y, exact), smallest) for y in (run(OP, arguments), plain))
        ratios.append(found / allowed)
    assert statistics.median(ratios) <= (1.5 if measure is rms_error else 2.0)
    assert statistics.geometric_mean(ratios) <= 2.0


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("sample", WHOLE, ids=[sample.name for sample in WHOLE])
def test_what_is_not_finite_spreads_as_in_pytorch(sample: Sample, value: float, isa: str) -> None:
    """From a pixel to its sequence, and to no other."""
    x, *rest = sample.arguments
    x = x.clone()
    x[0, 0, 1, 2] = value
    arguments = (x, *rest)
    assert torch.equal(run(OP, arguments).isnan(), run(OP, arguments, "reference").isnan())
