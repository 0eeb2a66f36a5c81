"""Operators to be timed: their arguments with values, and functions of the images alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.floors import IMAGES
from benchmarks.registry import COMPILED_OPERATORS as COMPILED
from mobilevit_fast.ops import OPS
from testing.shapes import OperatorCall


def materialized(call: OperatorCall, device: torch.device, seed: int = 0) -> dict[str, Any]:
    """The call's arguments by name with random numbers that keep a signal near 1, in the strides of the model."""
    generator = torch.Generator(device).manual_seed(seed)

    def values(name: str, a: Tensor) -> Tensor:
        random = torch.randn(a.numel(), generator=generator, device=device)
        if name in IMAGES:
            scaled = random
        elif name.endswith("scale") or (name.startswith("norm") and name.endswith("weight")):
            scaled = 1 + 0.1 * random
        elif name.endswith("weight"):
            stacked = (call.op == "mobilevit_transformer" and a.dim() == 3) or a.dim() == 5
            scaled = random * (a[0, 0] if stacked else a[0]).numel() ** -0.5
        else:
            scaled = 0.1 * random
        return scaled.to(a.dtype).as_strided(a.shape, a.stride())

    return {name: values(name, a) if isinstance(a, Tensor) else a for name, a in call.named.items()}


def builder(provider: str, call: OperatorCall, arguments: dict[str, Any]) -> Callable[..., Tensor]:
    """A function of the operator's images (x or x, x2), with the weights of ``arguments``.

    Raises:
        ValueError: the provider does not take the call; the message says why.
    """
    op = OPS[call.op]
    count = 1 + isinstance(arguments.get("x2"), Tensor)
    rest = tuple(arguments.values())[count:]
    if provider in ("plain", *COMPILED):
        rest = tuple(_channels_last(a) for a in rest)
        function: Callable[..., Tensor] = op.reference
        if provider in COMPILED:
            torch._dynamo.reset()
            function = torch.compile(op.reference, mode="max-autotune-no-cudagraphs", dynamic=False)
        return lambda *images: function(*images, *rest)
    x = arguments["x"]
    choice = op.choose(provider, x.device, x.dtype, arguments)
    bound = op.arguments_for(choice.backend, tuple(arguments.values()))[count:]
    return lambda *images: choice.overload(*images, *bound)


def _channels_last(a: Any) -> Any:
    return a.contiguous(memory_format=torch.channels_last) if isinstance(a, Tensor) and a.dim() == 4 else a
