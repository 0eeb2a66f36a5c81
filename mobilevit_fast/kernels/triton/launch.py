"""From tensors to a kernel on the current stream: memory layout, precision, device; launches that only are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from mobilevit_fast.kernels.triton.tiles import Tile, chip_of, choose


class Launch(NamedTuple):
    """One launch of a kernel.

    Attributes:
        kernel: compiled by Triton at its first launch.
        programs: how many run, given the tile.
        shape: rows and the sizes of weights, by which tiles are measured.
        tile: block sizes, numbers of warps and pipeline stages.
        arguments: all others, by name.
    """

    kernel: Any
    programs: Callable[[Tile], int]
    shape: tuple[int, ...]
    tile: Tile
    arguments: dict[str, Any]

    @property
    def mode(self) -> str:
        """The type of the first tensor, the input; "tf32" where float32 is multiplied so."""
        return _mode(self.arguments)

    def run(self, tile: Tile | None = None) -> None:
        """Launch on the current stream of the current device, with the launch's own tile or another."""
        tile = tile or self.tile
        self.kernel[(self.programs(tile),)](**self.arguments, **tile)


def _mode(arguments: dict[str, Any]) -> str:
    dtype = next(a.dtype for a in arguments.values() if isinstance(a, Tensor))
    return "tf32" if arguments["INPUT_PRECISION"] == "tf32" else str(dtype).removeprefix("torch.")


_instead: ContextVar[Callable[[Launch], None] | None] = ContextVar("_instead", default=None)


@contextmanager
def instead_of_launches(call: Callable[[Launch], None]) -> Iterator[None]:
    """Within this context ``call`` gets every launch of the thread, and nothing runs.

    For compiling and tuning what a forward would launch. Tensors may be without values (device "meta").
    """
    token = _instead.set(call)
    try:
        yield
    finally:
        _instead.reset(token)


def launch(kernel: Any, programs: Callable[[Tile], int], shape: tuple[int, ...], rule: Tile, **arguments: Any) -> None:
    """Run a kernel on the current stream of its tensors' device; no programs run nothing.

    The tile is the one measured for this chip and shape, or ``rule``.
    """
    device = next(a.device for a in arguments.values() if isinstance(a, Tensor))
    tile = choose(kernel.fn.__name__, device, _mode(arguments), shape, rule)
    if programs(tile) == 0:
        return
    if chip_of(device).startswith("gfx"):  # whose compiler does not know it
        tile = {name: value for name, value in tile.items() if name != "maxnreg"}
    one = Launch(kernel, programs, shape, tile, arguments)
    instead = _instead.get()
    if instead is not None:
        instead(one)
    elif device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            one.run()
    else:
        one.run()


def blocks(size: int, block: int) -> int:
    """Blocks that hold ``size`` elements."""
    return -(-size // block)


def power_of_two(size: int, least: int = 16) -> int:
    """The smallest power of two that is no smaller than either number; a product of Triton takes 16 and more."""
    return max(least, triton.next_power_of_2(size))


def alignment(*sizes: int) -> int:
    """The largest power of two up to 16 that divides all sizes: how many neighbouring elements one load can take."""
    return next(power for power in (16, 8, 4, 2, 1) if all(size % power == 0 for size in sizes))


def channels_last(x: Tensor) -> Tensor:
    """``x`` (N, C, H, W) with its pixels one after the other, copied where it is not so."""
    return x.contiguous(memory_format=torch.channels_last)


def allocate(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor on ``x``'s device without values; every result of a kernel lies in one."""
    return torch.empty(shape, dtype=dtype, device=x.device)


def empty_image(x: Tensor, channels: int, height: int, width: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """An image batch (N, channels, height, width) for ``x``'s batch, channels_last, without values."""
    return allocate(x, (x.shape[0], height, width, channels), dtype or x.dtype).permute(0, 3, 1, 2)


def dense(parameter: Tensor | None) -> Tensor | None:
    """A parameter with its elements one after the other."""
    return None if parameter is None else parameter.contiguous()


def input_precision(x: Tensor) -> str:
    """How float32 factors are multiplied: "tf32" where torch's matrix products do so and the chip can, else "ieee"."""
    allowed = x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    chip = chip_of(x.device)
    return "tf32" if allowed and (chip == "gfx942" or not chip.startswith("gfx")) else "ieee"
