"""Operators through their emulated CUDA kernels, on tensors on the CPU: results, and what the launches did."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from emulator.build import load
from mobilevit_fast import native, ops
from mobilevit_fast.kernels.cuda import backend as cuda_backend
from mobilevit_fast.kernels.cuda import rules, strips
from mobilevit_fast.kernels.cuda.packing import padded
from mobilevit_fast.native import LibraryStatus
from mobilevit_fast.ops.registry import result_dtype
from testing.tolerance import assert_within_twice, max_error

emulated: Any = load()
PROCESSORS, SHARED_BYTES, CAPABILITY = 132, 227 << 10, 80
"""Chip that is emulated unless a test says otherwise: an H100 that runs the kernels of all chips."""


def enable() -> None:
    """Give every operator with a CUDA kernel the backend ``cuda`` on the CPU, for the rest of the process."""
    native.load()
    native._statuses["cuda"] = LibraryStatus(True, emulated.__file__)
    if "cpu" not in cuda_backend.DEVICE_TYPES:
        cuda_backend.DEVICE_TYPES.append("cpu")


class Launch(NamedTuple):
    """Record of one launch.

    Attributes:
        kernel: its C++ type.
        blocks, threads, shared_bytes: of the launch; bytes of a block.
        arrays: bytes read and written, by the name of a global array.
        products: instructions of the matrix unit.
        exponentials: instructions of the special-function unit, of a thread each.
        wavefronts, conflicts: of shared memory, where they are watched; those beyond what the bytes need.
        sectors: of 32 bytes of global memory that warps ask for, where they are watched; lanes share them.
        instructions: of a thread each; warpgroups' products, float32 arithmetic and addresses are not among them.
        waits: of a thread each, for barriers.
        wgmma_macs, wgmma_clocks: multiply-adds of warpgroups' products, and the cycles that a matrix unit takes for
            them, summed over the launch.
    """

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    arrays: dict[str, tuple[int, int]]
    products: int
    exponentials: int
    wavefronts: int
    conflicts: int
    sectors: int
    instructions: int
    waits: int
    wgmma_macs: int
    wgmma_clocks: int

    @property
    def name(self) -> str:
        """The kernel's class without what it is made for."""
        return self.kernel.split("<")[0].split("::")[-1]

    def moved(self, *names: str) -> int:
        """Bytes read and written of these arrays."""
        return sum(sum(self.arrays[name]) for name in names)


def take_launches() -> list[Launch]:
    """Launches since the last call."""
    return [Launch(**entry) for entry in emulated.take_launches()]


@contextlib.contextmanager
def chip(
    processors: int = PROCESSORS, shared_bytes: int = SHARED_BYTES, capability: int = CAPABILITY
) -> Iterator[None]:
    """Emulate this chip, for packing too."""
    emulated.set_chip(processors, shared_bytes, capability)
    before = list(rules.SM90_DEVICE_TYPES)
    rules.SM90_DEVICE_TYPES[:] = ["cpu"] if capability == 90 else []
    try:
        yield
    finally:
        emulated.set_chip(PROCESSORS, SHARED_BYTES, CAPABILITY)
        rules.SM90_DEVICE_TYPES[:] = before


def run(
    op: str,
    arguments: tuple[Any, ...],
    *,
    seed: int = 0,
    watch_banks: bool = False,
    processors: int = PROCESSORS,
    shared_bytes: int = SHARED_BYTES,
    tile: Sequence[int] = (),
    capability: int = CAPABILITY,
) -> tuple[Tensor, list[Launch]]:
    """The result of an operator's arguments, and its launches.

    Args:
        op: name of the operator.
        arguments: those of its schema.
        seed: of the order in which threads run.
        watch_banks: count wavefronts and bank conflicts.
        processors, shared_bytes: of the chip, which decide about tiles.
        tile: the one to take instead, where the operator's binding says what its numbers mean; of inverted residuals
            0 for the kernels for many images, 1 for the one for every shape.
        capability: compute capability of the chip; 90 packs for the kernels of ``csrc/cuda/sm90`` and runs them.
    """
    definition = ops.OPS[op]
    dtype = result_dtype(arguments)
    with chip(processors, shared_bytes, capability):
        choice = definition.choose("cuda", torch.device("cpu"), dtype, definition.named(arguments))
        emulated.set_options(seed, watch_banks)
        emulated.set_tile(list(tile))
        emulated.take_launches()
        try:
            with torch.no_grad():
                return definition.run(choice.backend, arguments), take_launches()
        finally:
            emulated.set_options(0, False)
            emulated.set_tile([])


def weight_bytes(op: str, arguments: tuple[Any, ...]) -> int:
    """Bytes of an operator's packed weights that its kernels of all shapes read.

    Without those for torch's matrix product and for strips.
    """
    definition = ops.OPS[op]
    packing = definition.kernels["cuda"].packing
    assert packing is not None
    assert packing.implementation is not None
    _, weights, _ = definition.split(arguments)
    named = definition.named(arguments)
    others = [weights.weight, weights.weight[:, 0]] if op == "classifier_head" else []
    if op == "inverted_residual" and strips.takes(weights):
        others = strips.pack(weights)
    packed = packing.implementation(weights, *(named[name] for name in packing.settings))
    return packed.nbytes - sum(padded(tensor.numel() * tensor.element_size(), 16) for tensor in others)


FEW_PRODUCTS = 4000
"""Instructions of the matrix unit of a case that is run a second time."""


def check(
    op: str, arguments: tuple[Any, ...], measure: Callable[[Tensor, Tensor], float] = max_error, **options: Any
) -> list[Launch]:
    """Hold a result to the rule for errors, against float64, a small one to other orders of threads; the launches.

    Each operator has tests besides that run larger cases in several orders.
    """
    reference = ops.OPS[op].reference
    with torch.no_grad():
        plain = reference(*arguments)
        exact = reference(
            *(a.double() if isinstance(a, Tensor) and a.dtype.is_floating_point else a for a in arguments)
        )
    actual, launches = run(op, arguments, **options)
    assert actual.dim() != 4 or actual.is_contiguous(memory_format=torch.channels_last)
    assert_within_twice(actual, plain, exact, measure=measure)
    if sum(launch.products for launch in launches) <= FEW_PRODUCTS:
        again, _ = run(op, arguments, **{**options, "seed": options.get("seed", 0) + 1})
        assert torch.equal(again, actual)
    return launches
