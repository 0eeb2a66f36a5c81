"""Sizes whose products overflow, or of which a kernel could take more memory than its result is worth."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from testing.samples import SAMPLES
from testing.tolerance import assert_within_twice, close, rms_error
from tests.ops.variants import DTYPES, NATIVE, run

SPARSE = [5, 9, 1500, 2**20, 2**31, 2**60]
"""Strides with as much padding, so that at most one output of nine sees the image."""
WIDE = [3, 7, 8, 1000, 2**40, 2**59]
"""Dilations, with padding that keeps the size of the image."""


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _window(op: str, stride: int, padding: int, dilation: int, size: tuple[int, int] = (8, 8)) -> tuple[Any, ...]:
    """Arguments of an operator with a window."""
    geometry = [stride, stride], [padding, padding], [dilation, dilation]
    x, pointwise = _randn(2, 8, *size), _randn(12, 8, 1, 1) / 3
    if op == "conv2d_bias_act":
        return x, None, _randn(12, 8, 3, 3) / 8, None, _randn(12), *geometry, "silu"
    if op == "depthwise_conv2d":
        return x, _randn(8, 1, 3, 3) / 3, None, _randn(8), *geometry, "none"
    if op == "depthwise_separable_conv2d":
        return x, _randn(8, 1, 3, 3) / 3, None, _randn(8), pointwise, None, None, *geometry, "silu", "none"
    weights = (pointwise, None, _randn(12), _randn(12, 1, 5, 3) / 4, None, _randn(12), _randn(8, 12, 1, 1) / 4)
    return x, *weights, None, None, geometry[0], geometry[2], stride == 1, "silu"


WINDOWS = [
    *((op, value, value, 1) for op in NATIVE if "conv2d" in op for value in SPARSE),
    *((op, 1, value, value) for op in NATIVE if "conv2d" in op or op == "inverted_residual" for value in WIDE),
    *(("inverted_residual", value, 0, 1) for value in SPARSE),
]


def _in_type(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    return tuple(a.to(dtype) if isinstance(a, Tensor) else a for a in arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("op", "stride", "padding", "dilation"), WINDOWS)
def test_windows_that_mostly_see_padding(
    op: str, stride: int, padding: int, dilation: int, dtype: torch.dtype, isa: str
) -> None:
    arguments = _in_type(_window(op, stride, padding, dilation), dtype)
    exact = run(op, _in_type(arguments, torch.float64), "reference")
    if dtype == torch.float32:
        close(run(op, arguments), exact)
    else:  # few numbers: their root mean square decides
        assert_within_twice(run(op, arguments), run(op, arguments, "reference"), exact, measure=rms_error)


@pytest.mark.parametrize("size", [(8, 1), (1, 8), (3, 40)], ids=str)
@pytest.mark.parametrize("stride", [2, 3, 11])
@pytest.mark.parametrize("channels", [3, 8])
def test_columns_that_no_window_meets_are_left_out(size: tuple[int, int], stride: int, channels: int, isa: str) -> None:
    """Every way in which a window and its padding can lie around an image, of one input and two."""
    for kernel, padding in ((1, 0), (1, 1), (2, 1), (3, 1), (3, 12)):
        x, x2 = _randn(2, channels, *size), _randn(2, 5, *size)
        for second in (None, x2):
            inputs = channels + (0 if second is None else 5)
            weight = _randn(9, inputs, kernel, kernel) / kernel
            if min(size) + 2 * padding < kernel:
                continue
            arguments = (x, second, weight, None, None, [stride] * 2, [padding] * 2, [1, 1], "none")
            exact = run("conv2d_bias_act", _in_type(arguments, torch.float64), "reference")
            close(run("conv2d_bias_act", arguments), exact)


PEAK = """
import resource, torch
from mobilevit_fast import ops
from tests.ops.test_sizes import _window
for op, *geometry in {cases!r}:
    arguments = _window(op, *geometry)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ops.OPS[op].run("cpu", arguments)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 << 10, (op, geometry, grown)
print("done")
"""


def _in_a_process(code: str, memory: int = 8 << 30) -> str:
    """What the code prints, in a process that may not take more memory: a crash is one of its own."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory))  # noqa: E731
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert result.returncode == 0, f"{result.returncode}: {result.stderr[-2000:]}"
    return result.stdout


def test_working_memory_is_that_of_the_result() -> None:
    assert _in_a_process(PEAK.format(cases=WINDOWS)) == "done\n"


HUGE: list[tuple[str, str, Callable[[], Any]]] = [
    *(
        (f"{op} of {name} 2^61", f"{name} of less than 2\\^61", lambda op=op, name=name: _huge_geometry(op, name))
        for op in ("depthwise_conv2d", "conv2d_bias_act", "depthwise_separable_conv2d")
        for name in ("stride", "padding", "dilation")
    ),
    ("patch", r"patch_size of less than 2\^61", lambda: _patch(2**61)),
    ("patch of 2^63", r"patch_size of less than 2\^61", lambda: _patch(2**63)),
    ("rates", r"one rate or more, each at least 1 and less than 2\^61", lambda: _rates(2**61)),
    ("result", r"fewer than 2\^63 bytes", lambda: _padded(2**59)),
    ("memory", r"expected \d+ bytes of memory for a result", lambda: _padded(2**22)),
    ("patch of all memory", r"expected \d+ bytes of memory for a result", lambda: _patch(2**24)),
    ("patch of more than that", r"fewer than 2\^63 bytes", lambda: _patch(2**31)),
    ("patch of any size", r"fewer than 2\^63 bytes", lambda: _patch(2**60)),
    ("batch of one image", r"fewer than 2\^63 bytes", lambda: _expanded(2**59)),
]


def _huge_geometry(op: str, name: str) -> Tensor:
    weight = torch.zeros(4, 4 if op == "conv2d_bias_act" else 1, 3, 3)
    more = (None, torch.zeros(4, 4, 1, 1)) if op == "depthwise_separable_conv2d" else ()
    return getattr(ops, op)(torch.zeros(1, 4, 8, 8), weight, *more, **{name: 2**61})


def _arguments(op: str) -> list[Any]:
    return list(next(SAMPLES[op]()).arguments)


def _patch(size: int) -> Tensor:
    arguments = _arguments("mobilevit_transformer")
    arguments[arguments.index([2, 2])] = [size, size]
    return ops.OPS["mobilevit_transformer"]("cpu", *arguments)


def _rates(rate: int) -> Tensor:
    arguments = _arguments("aspp")
    arguments[-2] = [rate] * 3
    return ops.OPS["aspp"]("cpu", *arguments)


def _padded(padding: int) -> Tensor:
    return ops.conv2d_bias_act(torch.zeros(1, 4, 8, 8), torch.zeros(4, 4, 1, 1), padding=padding, backend="cpu")


def _expanded(batch: int) -> Tensor:
    return ops.conv2d_bias_act(torch.zeros(1, 1, 1, 1).expand(batch, 1, 1, 1), torch.zeros(4, 1, 1, 1), backend="cpu")


@pytest.mark.parametrize(("name", "message", "call"), HUGE, ids=[name for name, *_ in HUGE])
def test_what_cannot_be_counted_is_refused(name: str, message: str, call: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message) as error:
        call()
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("mobilevit_fast")


def test_a_stride_without_meaning_is_not_computed_with() -> None:
    """Of a dimension of size 1 any stride may stand, even one whose multiples overflow."""
    for op in ("depthwise_conv2d", "conv2d_bias_act", "depthwise_separable_conv2d", "inverted_residual"):
        x, *rest = _window(op, 1, 1, 1, (1, 1))
        odd = torch.as_strided(x, (1, 8, 1, 1), (2**62, 1, 2**62 - 1, 2**61))
        assert torch.equal(run(op, (odd, *rest)), run(op, (x[:1], *rest)))
