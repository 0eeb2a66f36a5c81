"""Time that the host spends on a forward of a model whose regions are CUDA kernels, with launches that do nothing.

What a call costs before and between its launches: Python, torch's dispatcher, the bindings with their checks, memory of
results. What CUDA's runtime takes for a launch is not among it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from emulator import run
from mobilevit_fast.acceleration import programs

CAPABILITY = 90
CALLS, ROUNDS = 20, 40


class Host(NamedTuple):
    """Microseconds of a processor for a call.

    Attributes:
        modules: by the model's modules.
        launches: recorded, until the last launch.
        check: what is asked after that, while a GPU is at work.
    """

    modules: float
    launches: float
    check: float


def measure(model: nn.Module, x: Tensor) -> Host:
    """The host's time for a model of float16 parameters on images; it is accelerated in place.

    Raises:
        ValueError: its calls are not recorded.
    """
    run.enable()
    mvf.accelerate(model, backend="cuda")
    layouts: Any = model._mvf_layouts
    kept: programs.Programs = layouts.programs
    with run.chip(capability=CAPABILITY), torch.inference_mode():
        run.emulated.set_options(0, False, idle=True)
        try:
            for _ in range(3):
                model(x)
            found: list[programs.Program] = list(kept._programs.values())
            if len(found) != 1:
                raise ValueError("expected a model whose calls are kernels and nothing else")
            (program,) = found
            recorded = dict(kept._programs)
            kept._refused.update(recorded)  # not to be recorded again where they are taken away

            def by_modules() -> None:
                kept._programs.clear()
                model(x)

            def by_program() -> None:
                kept._programs.update(recorded)
                model(x)

            modules, whole, check = _microseconds(by_modules, by_program, lambda: program.is_current(model))
            return Host(modules, whole - check, check)
        finally:
            run.emulated.set_options(0, False)


def _microseconds(*calls: Callable[[], Any]) -> list[float]:
    """Time of the thread for each, turn by turn; the least of all rounds, as others use the same caches."""
    least = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            began = time.thread_time()
            for _ in range(CALLS):
                call()
            least[i] = min(least[i], 1e6 * (time.thread_time() - began) / CALLS)
    return least
