"""The Triton kernels on the CPU, by Triton's interpreter (TRITON_INTERPRET=1), or on a GPU (`pytest -m gpu`).

A process does one of the two: the variable is read when a kernel is defined.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from mobilevit_fast.kernels.triton import launch, tiles
from mobilevit_fast.kernels.triton.backend import INTERPRETING
from mobilevit_fast.kernels.triton.tiles import Tile

HERE = Path(__file__).parent
ALLOCATE = launch.allocate
GUARD, SENTINEL = 64, 12345.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests as a GPU's where they run on one, and skip them where they cannot run at all."""
    for item in items:
        if HERE not in item.path.parents or INTERPRETING:
            continue
        item.add_marker(pytest.mark.gpu)
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU, or TRITON_INTERPRET=1"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the tensors of a test lie."""
    return torch.device("cpu" if INTERPRETING else "cuda")


def _large_tiles(kernel: str, device: torch.device, mode: str, shape: tuple[int, ...], rule: Tile) -> Tile:
    """Blocks four times as large, where a table does not say otherwise."""
    tile = tiles.choose(kernel, device, mode, shape, rule)
    return {name: 4 * size if name in _BLOCKS else size for name, size in tile.items()} if tile == rule else tile


_BLOCKS = ("BLOCK_M", "BLOCK_N", "BLOCK_E", "BLOCK_H")  # not those that a shape determines, or that cut sums


@pytest.fixture(autouse=True)
def guarded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results begin as not-a-number, between guards that no kernel may touch; not where memory has to be used again."""
    if request.path.name == "test_gpu.py":
        yield
        return
    allocated: list[Tensor] = []

    def allocate(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = torch.Size(shape).numel()
        memory = torch.full((size + 2 * GUARD,), SENTINEL, dtype=dtype, device=x.device)
        memory[GUARD : GUARD + size] = torch.nan
        if x.device.type != "meta":
            allocated.append(memory)
        return memory[GUARD : GUARD + size].view(shape)

    monkeypatch.setattr(launch, "allocate", allocate)
    if INTERPRETING:
        monkeypatch.setattr(tiles, "PROGRAMS", 2)  # it takes its time for each program, however large,
        monkeypatch.setattr(launch, "choose", _large_tiles)  # and for each step of a loop
    with numpy.errstate(all="ignore"):  # the interpreter computes in NumPy, which warns of what a GPU just does
        yield
    for memory in allocated:
        expected = torch.tensor(SENTINEL, dtype=memory.dtype)
        assert (memory[:GUARD] == expected).all(), "a kernel wrote before its result"
        assert (memory[-GUARD:] == expected).all(), "a kernel wrote behind its result"
