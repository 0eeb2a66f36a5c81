"""Numbers of any magnitude: every tensor of a call by a factor of its own, 1e-30 to 1e4."""

from __future__ import annotations

import functools
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from testing.samples import SAMPLES
from testing.tolerance import close, max_error, rms_error
from tests.ops.variants import DTYPES, ISAS, NATIVE, OF_PAIRS, exact_and_plain, run

CASES = 60
FEW = 64
"""Different numbers of a result below which the size of PyTorch's own error is luck: one rounding up or down."""


@functools.lru_cache(maxsize=CASES)
def _case(op: str, seed: int) -> tuple[tuple[Any, ...], Tensor, Tensor]:
    """Arguments, their result in float64 and PyTorch's, which are the same for every variant."""
    samples = [sample for sample in SAMPLES[op]() if sample.name.endswith("channels_last")]
    sample, dtype = samples[seed % len(samples)], DTYPES[seed // len(samples) % 2]
    chooser, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    arguments = list(sample.arguments)
    for i, argument in enumerate(arguments):
        if isinstance(argument, Tensor):
            numbers = torch.randn(argument.shape, generator=generator) * 10 ** chooser.uniform(-30, 4)
            arguments[i] = torch.empty_like(argument, dtype=dtype).copy_(numbers)
    return tuple(arguments), *exact_and_plain(op, tuple(arguments))


def _lost(arguments: tuple[Any, ...]) -> float:
    """The most that sums over the channels of an image lose where a part of them is subnormal."""
    channels: int = arguments[0].shape[1]
    return channels * torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("isa", ISAS, indirect=True)  # varies first, for what is kept of a case
@pytest.mark.parametrize("op", NATIVE)
def test_one_of_two_measures_keeps_to_the_rule(op: str, isa: str) -> None:
    """The largest error or the root mean square is at most twice PyTorch's.

    Where a result has few different numbers, as where a bias is all that is left of an image, it is held to float64.
    Products of pairs take and give no subnormal numbers: every one of them may lose the smallest normal one.
    """
    for seed in range(CASES):
        arguments, exact, plain = _case(op, seed)
        actual = run(op, arguments)
        if all(measure(actual, exact) > 2 * measure(plain, exact) for measure in (max_error, rms_error)):
            if isa in OF_PAIRS and actual.dtype == torch.bfloat16 and max_error(actual, exact) <= _lost(arguments):
                continue
            assert plain.unique().numel() < FEW, seed
            close(actual, exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [3, 40])
def test_silu_of_large_numbers(channels: int, dtype: torch.dtype, isa: str) -> None:
    """Zero far below, the number itself far above, and what is not a number stays so."""
    values = [-math.inf, -1e30, -1000.0, -100.0, -88.0, 88.0, 1000.0, 1e30, math.inf, math.nan]
    bias = torch.tensor(values, dtype=torch.float32)
    x, weight = torch.zeros(1, channels, 6, 6, dtype=dtype), torch.zeros(len(values), channels, 3, 3, dtype=dtype)
    y = run("conv2d_bias_act", (x, None, weight, None, bias, [1, 1], [1, 1], [1, 1], "silu"))[0, :, 2, 2].float()
    assert (y[:5] == 0).all()
    assert torch.equal(y[5:9], bias[5:9].to(dtype).float())
    assert y[9].isnan()
