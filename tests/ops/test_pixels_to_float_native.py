"""uint8 images as float32: lookups in every memory layout, variant and number of threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast.ops import pixels_to_float
from testing.threads import using_threads

SHAPES = [(1, 3, 1, 1), (2, 3, 5, 7), (1, 3, 3, 4), (3, 1, 4, 9), (2, 4, 3, 13), (2, 3, 64, 37), (5, 3, 256, 256)]


def layouts(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    n, c, h, w = shape
    return {
        "planes": torch.zeros(shape, dtype=dtype),
        "interleaved": torch.zeros(n, h, w, c, dtype=dtype).permute(0, 3, 1, 2),
        "wider": torch.zeros(n, h + 1, w + 2, c + 1, dtype=dtype).permute(0, 3, 1, 2)[:, 1:, :h, 1 : 1 + w],
        "columns first": torch.zeros(w, h, c, n, dtype=dtype).permute(3, 2, 1, 0),
    }


def expected(x: Tensor, table: Tensor, flip: bool) -> Tensor:
    planes = torch.stack([table[c][x[:, c].long()] for c in range(x.shape[1])], 1)
    return planes.flip(1) if flip else planes


@pytest.mark.parametrize("flip", [False, True], ids=["same", "flipped"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_byte_is_looked_up(shape: tuple[int, ...], flip: bool, isa: str) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    table = torch.randn(shape[1], 256, generator=generator)
    right = expected(values, table, flip)
    for name, x in layouts(shape, torch.uint8).items():
        x.copy_(values)
        new = pixels_to_float(x, table, flip_channels=flip)
        assert new.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(new, right), name
        for out_name, out in layouts(shape, torch.float32).items():
            assert pixels_to_float(x, table, flip_channels=flip, out=out) is out
            assert torch.equal(out, right), (name, out_name)


def test_the_bits_of_the_table_are_kept() -> None:
    """Also those that are no number, or subnormal."""
    bits = torch.tensor([0x7FC12345, -0x80000000, 1, 0x7F800000], dtype=torch.int32).repeat(64)
    table = bits.view(torch.float32).repeat(3, 1)
    x = torch.arange(3 * 256, dtype=torch.int32).remainder(256).to(torch.uint8).reshape(1, 3, 16, 16)
    assert torch.equal(pixels_to_float(x, table).contiguous().view(torch.int32), bits[x.long()])


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    x = torch.randint(0, 256, (5, 3, 190, 201), dtype=torch.uint8)
    table = torch.randn(3, 256)
    with using_threads(threads):
        assert torch.equal(pixels_to_float(x, table), expected(x, table, False))


def test_no_images_are_no_images() -> None:
    table = torch.zeros(3, 256)
    for shape in [(0, 3, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)]:
        assert pixels_to_float(torch.zeros(shape, dtype=torch.uint8), table).shape == shape


X = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "rank": ({"x": X[0]}, "images of shape"),
    "type": ({"x": X.int()}, "images of type torch.uint8, got torch.int32"),
    "table type": ({"table": torch.zeros(3, 256).double()}, "table and out of type torch.float32, got torch.float64"),
    "table shape": ({"table": torch.zeros(3, 255)}, r"a dense table of shape \(3, 256\), got \(3, 255\)"),
    "table strides": ({"table": torch.zeros(256, 3).T}, "a dense table"),
    "out type": ({"out": torch.zeros(2, 3, 4, 5).half()}, "got torch.float32 and torch.float16"),
    "out shape": ({"out": torch.zeros(2, 3, 5, 4)}, "out of the images' shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_refused(name: str) -> None:
    changed, message = REFUSED[name]
    given: dict[str, Any] = {"x": X, "table": torch.zeros(3, 256), "out": torch.zeros(2, 3, 4, 5)} | changed
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mobilevit_fast.pixels_to_float.cpu(**given, flip_channels=False)


def test_the_operator_is_declared_as_it_is() -> None:
    overload = torch.ops.mobilevit_fast.pixels_to_float.cpu
    torch.library.opcheck(overload, (X, torch.randn(3, 256), True, torch.zeros(2, 3, 4, 5)))
