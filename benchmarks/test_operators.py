"""Every operator at the shapes of the three sizes: its kernels against the reference, in channels_last.

Run with `python -m pytest benchmarks`; rows of one group are the same work. Where there is a GPU, its kernels are
measured too. What is measured is also held to the rule for errors: at most twice what plain PyTorch makes.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.cpu.table import shape_text
from benchmarks.floors import IMAGES
from benchmarks.operators import builder, materialized
from mobilevit_fast.ops import OPS
from testing.shapes import OperatorCall, all_calls
from testing.tolerance import assert_within_twice, rms_error

DEVICES = {
    "cpu": (("cpu", "plain"), (torch.float32, torch.bfloat16), 1),
    "cuda": (("cuda", "triton", "plain"), (torch.float16, torch.bfloat16), 32),
}
"""By device: the kernels, the types and the number of images."""


class Call(NamedTuple):
    """An operator's call on a device, and who computes it."""

    device: str
    provider: str
    call: OperatorCall

    @property
    def group(self) -> str:
        """Name that rows of the same work have in common."""
        x = self.call.named["x"]
        dtype = str(x.dtype).removeprefix("torch.")
        residual = ", residual" if self.call.named.get("residual") else ""
        return f"{self.call.op} {shape_text(self.call.shape)}{residual}, batch {len(x)}, {dtype}, {self.device}"


def cases() -> Iterator[Call]:
    """Cases that can be measured here; the kernels of one work follow each other."""
    for device, (providers, dtypes, batch) in DEVICES.items():
        if device == "cuda" and not torch.cuda.is_available():
            continue
        for dtype in dtypes:
            for call in sorted(all_calls(batch, dtype=dtype), key=lambda call: list(OPS).index(call.op)):
                for provider in providers:
                    if (
                        provider == "plain"
                        or OPS[call.op].supports(provider, torch.device(device), dtype, call.named).ok
                    ):
                        yield Call(device, provider, call)


CASES = {f"{case.group}, {case.provider}".replace("→", "-").replace("×", "x"): case for case in cases()}


@functools.lru_cache(maxsize=1)
def computed(group: str) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Arguments, the exact result and plain PyTorch's, for all kernels of one work."""
    device, _, call = next(case for case in CASES.values() if case.group == group)
    arguments = materialized(call, torch.device(device))
    double = [a.double() if isinstance(a, Tensor) else a for a in arguments.values()]
    return arguments, OPS[call.op].reference(*double), builder("plain", call, arguments)(*images_of(arguments))


def images_of(arguments: dict[str, Any]) -> list[Tensor]:
    """Those among the arguments."""
    return [a for name, a in arguments.items() if name in IMAGES and isinstance(a, Tensor)]


def waiting(function: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """The function; on a GPU, until its result is there."""
    if device == "cpu":
        return function

    def call(*images: Tensor) -> Tensor:
        result = function(*images)
        torch.cuda.synchronize()
        return result

    return call


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operator(benchmark: Any, case: Call) -> None:
    benchmark.group = case.group
    with torch.inference_mode():
        arguments, exact, plain = computed(case.group)
        function = waiting(builder(case.provider, case.call, arguments), case.device)
        actual = benchmark(function, *images_of(arguments))
    assert_within_twice(actual, plain, exact, measure=rms_error)
