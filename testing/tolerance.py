"""The one rule for numerical error: at most twice what plain PyTorch makes in the same type.

Errors are measured against the same computation in float64. There is no tolerance to choose: the bound comes from
PyTorch's own rounding on the same numbers.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def max_error(value: Tensor, exact: Tensor) -> float:
    """Largest absolute difference from the float64 result; infinite where ``value`` has a NaN."""
    difference = (value.double() - exact.double()).abs()
    return float("inf") if difference.isnan().any() else difference.max().item()


def rms_error(value: Tensor, exact: Tensor) -> float:
    """Root of the mean squared difference from the float64 result; infinite where ``value`` has a NaN.

    For whole models, and where few numbers decide on the largest error: that of a few roundings is a matter of luck.
    """
    mean = (value.double() - exact.double()).square().mean()
    return float("inf") if mean.isnan() else mean.sqrt().item()


def assert_within_twice(
    actual: Tensor,
    plain: Tensor,
    exact: Tensor,
    factor: float = 2.0,
    measure: Callable[[Tensor, Tensor], float] = max_error,
) -> None:
    """``actual`` errs at most ``factor`` times as much as ``plain``, both against ``exact``.

    Args:
        actual: result under test.
        plain: result of plain PyTorch in the same type.
        exact: result in float64.
        factor: 2, or 3 for gradients.
        measure: how to measure an error.
    """
    assert exact.dtype == torch.float64, "the exact result has to be computed in float64"
    assert actual.shape == exact.shape
    allowed = factor * measure(plain, exact)
    found = measure(actual, exact)
    assert found <= allowed, f"error {found:.3e}, allowed {allowed:.3e} ({factor} times PyTorch's own)"


def close(actual: Tensor, expected: Tensor, terms: float = 0.0) -> None:
    """Equal but for the order of float32 sums, within 1e-5 of the largest value, and one rounding to the type.

    ``terms`` is how large a result were if none of the terms of its sums had a sign: where they cancel, results may
    differ by four roundings of that.
    """
    rounding = torch.finfo(actual.dtype).eps / 2 * expected.double().abs()
    excess = ((actual.double() - expected.double()).abs() - rounding).max().item()
    largest = expected.abs().max().item()
    allowed = max(1e-5 * largest, 2 * torch.finfo(torch.float32).eps * terms)
    assert excess <= allowed, f"difference {excess:.3e} beyond rounding, largest value {largest:.3e}"
