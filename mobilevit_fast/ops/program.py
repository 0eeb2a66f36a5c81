"""Kernels of the CUDA library one after the other, in one call of torch's dispatcher."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mobilevit_fast.ops.registry import LIBRARY, NAMESPACE, OPS

KERNELS = ("conv2d_bias_act", "inverted_residual", "mobilevit_transformer", "classifier_head")
"""Operators that it knows, in the order of ``csrc/cuda/program/program.h``."""

LIBRARY.define("program.cuda(Tensor images, Tensor[] packed, int[] code) -> Tensor")


class Step(NamedTuple):
    """A kernel with its arguments, and the places of its inputs and of its result; the images have place 0."""

    kernel: Callable[..., Tensor]
    sources: tuple[int, ...]
    arguments: tuple[Any, ...]
    target: int


class Encoded(NamedTuple):
    """Steps as the library takes them: packed weights, and numbers that say what is done with what."""

    packed: list[Tensor]
    code: list[int]

    def run(self, images: Tensor) -> Tensor:
        """The result of the last step."""
        result: Tensor = torch.ops.mobilevit_fast.program.cuda(images, self.packed, self.code)
        return result


def encoded(steps: Sequence[Step]) -> Encoded | None:
    """The steps in numbers; None where one is no kernel of the CUDA library, or that has no programs yet."""
    known = {OPS[name].overload("cuda"): number for number, name in enumerate(KERNELS)}
    device = next((a.device.type for step in steps for a in step.arguments if isinstance(a, Tensor)), "meta")
    name = f"{NAMESPACE}::program.cuda"
    if any(step.kernel not in known for step in steps) or device not in ("cpu", "cuda"):
        return None
    if not torch._C._dispatch_has_kernel_for_dispatch_key(name, device.upper()):
        return None
    places = 1 + max(step.target for step in steps)
    packed: list[Tensor] = []
    code = [places]
    for step in steps:
        code += [known[step.kernel], step.target, *step.sources]
        for argument in step.arguments:
            if isinstance(argument, Tensor):
                code.append(places + len(packed))
                packed.append(argument)
            else:
                code += _numbers(argument)
    return Encoded(packed, code)


def _numbers(argument: Any) -> list[int]:
    if argument is None:  # no second image
        return [-1]
    if isinstance(argument, float):
        return list(struct.unpack("<q", struct.pack("<d", argument)))
    if isinstance(argument, str):
        return [len(argument), *argument.encode("ascii")]
    return [int(argument)] if isinstance(argument, int) else [len(argument), *argument]
