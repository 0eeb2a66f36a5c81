"""The emulated device of compute capability 9.0: where matrices lie, products, tensor copies, moves of matrices."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.emulator.build import load

emulated: Any = load()
NONE, B128, B64, B32 = range(4)
WIDTH = {NONE: 16, B128: 128, B64: 64, B32: 32}


class Matrix(NamedTuple):
    """A matrix in shared memory by its descriptor: offsets in bytes."""

    start: int
    leading: int
    stride: int
    swizzle: int


def swizzled(address: np.ndarray[Any, Any], swizzle: int) -> np.ndarray[Any, Any]:
    """Bits 4 and on are exchanged by bits 7 and on."""
    return address ^ ((address >> 7 & (WIDTH[swizzle] // 16 - 1)) << 4)


def bytes_read(m: Matrix, transposed: bool, rows: int) -> np.ndarray[Any, Any]:
    """(rows, 16): the byte of each number of an operand with its depth innermost, or, transposed, its rows."""
    row, k = np.arange(rows)[:, None], np.arange(16)[None, :]
    width = WIDTH[m.swizzle]
    if not transposed and m.swizzle == NONE:
        at = row // 8 * m.stride + k // 8 * m.leading + row % 8 * 16 + k % 8 * 2
    elif not transposed:
        at = row // 8 * m.stride + row % 8 * width + k * 2
    elif m.swizzle == NONE:
        at = row // 8 * m.stride + k // 8 * m.leading + k % 8 * 16 + row % 8 * 2
    else:
        wide = width // 2
        at = row // wide * m.leading + k // 8 * m.stride + k % 8 * width + row % wide * 2
    return swizzled(at + m.start, m.swizzle)


def matrices(transposed: bool, swizzle: int) -> list[Matrix]:
    """Plain ones, views that begin at another row, pitches of images with a halo."""
    w = WIDTH[swizzle]
    if swizzle == NONE:
        plain = [(0, 128, 256), (0, 2048, 128), (16, 2064, 144)]
        shapes = plain if transposed else [*plain, (48, 3008, 160)]
    elif transposed:
        shapes = [(0, 8192, 8 * w), (3 * w, 8192, 8 * w), (32 % w, 8192, 8 * w), (13 * w, 4096, 10 * w)]
    else:
        shapes = [(0, 16, 8 * w), (0, 1024, 8 * w), (32 % w, 16, 8 * w), (96 % w + 3 * w, 16, 8 * w)]
        shapes += [(32 % w + 13 * w, 16, 10 * w), (64 % w + 19 * w, 16, 18 * w)]
    return [Matrix(*shape, swizzle) for shape in shapes]


@pytest.mark.parametrize("swizzle", [NONE, B128, B64, B32])
@pytest.mark.parametrize("transposed", [False, True], ids=["depth-innermost", "rows-innermost"])
@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
def test_what_descriptors_read(left: bool, transposed: bool, swizzle: int) -> None:
    rows = 64 if left else 128
    for matrix in matrices(transposed, swizzle):
        found = np.full((2, rows, 16), np.nan, np.float32)
        (emulated.probe_left if left else emulated.probe_right)(transposed, matrix, found)
        assert (2 * (found[0] + 1024 * found[1]) == bytes_read(matrix, transposed, rows)).all(), matrix


@pytest.mark.parametrize("n", [8, 48, 64, 96, 144, 256])
@pytest.mark.parametrize("registers", [False, True], ids=["ss", "rs"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_products(dtype: torch.dtype, registers: bool, n: int) -> None:
    numbers = torch.randn(64 + n, 64, generator=torch.Generator().manual_seed(n)).to(dtype)
    found = np.full((64, n), np.nan, np.float32)
    emulated.take_launches()
    emulated.multiply_sm90(n, dtype == torch.bfloat16, registers, numbers.view(torch.int16).numpy(), found)
    expected = numbers[:64].double() @ numbers[64:].double().T
    torch.testing.assert_close(torch.from_numpy(found), expected.float(), rtol=1e-5, atol=1e-4)
    (launch,) = emulated.take_launches()
    assert launch["wgmma_macs"] == 64 * n * 64
    assert launch["wgmma_clocks"] == 4 * n // 2
    assert launch["products"] == 0


BOXES = [
    (1, -1, -1, 0, 64, 10, 18),
    (2, 15, 23, 64, 32, 10, 18),
    (0, -1, -1, 0, 32, 34, 6),
    (1, 28, -1, 64, 64, 18, 10),
    (1, 4, 3, 80, 16, 10, 10),
    (0, 0, -1, 88, 8, 10, 10),
]


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_copies_of_boxes(box: tuple[int, ...]) -> None:
    """With a halo around the images and channels beyond the last."""
    image, row, column, channel, channels, width, height = box
    x = np.arange(3 * 32 * 32 * 96, dtype=np.uint32).reshape(3, 32, 32, 96) * np.uint32(2654435761) >> 13
    x = x.astype(np.uint16) | 1
    swizzle = {64: B128, 32: B64, 16: B32, 8: NONE}[channels]
    found = np.zeros((height, width, channels), np.uint16)
    emulated.copy_box(x.shape, (1, height, width, channels), swizzle, (image, row, column, channel), x, found)
    expected = np.zeros_like(found)
    rows, columns, depth = (np.arange(n) + at for n, at in ((height, row), (width, column), (channels, channel)))
    inside = [(places >= 0) & (places < size) for places, size in ((rows, 32), (columns, 32), (depth, 96))]
    expected[np.ix_(*inside)] = x[image][np.ix_(rows[inside[0]], columns[inside[1]], depth[inside[2]])]
    address = np.arange(expected.size) * 2
    assert (found.reshape(-1)[swizzled(address, swizzle) // 2] == expected.reshape(-1)).all()


def test_moves_of_matrices() -> None:
    """Stored as loaded, stored transposed, loaded transposed, transposed in registers."""
    x = np.arange(4 * 64, dtype=np.uint16).reshape(4, 8, 8)
    found = np.zeros((4, 4, 8, 8), np.uint16)
    emulated.move_matrices(x, found)
    turned = x.transpose(0, 2, 1)
    for one, expected in zip(found, (x, turned, turned, turned), strict=True):
        assert (one == expected).all()
