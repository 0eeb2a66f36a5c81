"""The CUDA kernels of the resize, emulated: orders of threads, which rows a block takes, what they move."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emulator.run import Launch, chip, emulated, take_launches

BILINEAR, BICUBIC = 2, 3


def run(
    image: Tensor, size: tuple[int, int], out: Tensor, resample: int = BILINEAR, *, seed: int = 0, processors: int = 132
) -> list[Launch]:
    """The launches of a resize into ``out``."""
    offset = [(edge - kept) // 2 for edge, kept in zip(size, out.shape[1:], strict=True)]
    take_launches()
    emulated.set_options(seed, True)
    try:
        with chip(processors=processors):
            torch.ops.mobilevit_fast.resize_crop.cuda(image, list(size), offset, resample, False, False, out)
    finally:
        emulated.set_options(0, False)
    return take_launches()


def image_of(height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (height, width, channels), generator=generator, dtype=torch.uint8)


def interleaved(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.zeros(height, width, channels, dtype=torch.uint8).permute(2, 0, 1)


@pytest.mark.parametrize("resample", [BILINEAR, BICUBIC])
def test_results_do_not_depend_on_the_order_of_threads(resample: int) -> None:
    image = image_of(50, 180)
    outs = [interleaved(33, 140) for _ in range(4)]
    for seed, out in enumerate(outs):
        run(image, (38, 150), out, resample, seed=seed)
    assert all(torch.equal(out, outs[0]) for out in outs)


def test_nor_on_the_rows_of_a_block() -> None:
    """Few rows for many multiprocessors, as many as 32 for one, down to two where windows are long."""
    image, size = image_of(120, 130), (94, 102)
    outs = [interleaved(90, 100) for _ in range(3)]
    launches = [run(image, size, out, processors=count)[1] for out, count in zip(outs, (1, 4, 132), strict=True)]
    assert [launch.blocks for launch in launches] == [-(-90 // rows) for rows in (16, 4, 4)]
    assert all(torch.equal(out, outs[0]) for out in outs)
    assert run(image, size, outs[0], BICUBIC)[1].blocks == 90 // 2


def test_a_resize_moves_little_more_than_it_has_to() -> None:
    """Bytes of the result once, in words of four; each row of the image once for a block of many rows."""
    image, out = image_of(130, 174), interleaved(96, 128)
    tables, launch = run(image, (100, 134), out, processors=1)
    assert (tables.name, launch.name) == ("MakeResizeTables", "ResizeCrop")
    assert launch.arrays["y"] == (0, out.nbytes)
    assert tables.arrays["tables"] == (0, 4 * (96 * 4 + 128 * 4))
    # Three pixels are three words where they begin at one, and 1.3 rows of the image are one of the result; a block
    # begins with a window, and ends with rows that nobody looks at.
    words_of_column = 3 * (96 * 1.3 + (96 / 32) * (3 + 3))
    assert launch.arrays["image"][0] <= 4 * 128 * words_of_column
    assert launch.conflicts == 0


def test_words_are_written_where_the_result_consists_of_words() -> None:
    """A third of the sectors that bytes one by one ask for, at the same bytes."""
    image = image_of(40, 50)
    unaligned = torch.zeros(3 * 32 * 32 + 1, dtype=torch.uint8)[1:].view(32, 32, 3).permute(2, 0, 1)
    written = []
    for out in (interleaved(32, 32), unaligned):
        launch = run(image, (32, 40), out)[1]
        assert launch.arrays["y"] == (0, out.numel())
        written.append(launch.sectors)
    assert written[1] - written[0] >= 32 * 2 * 3


def test_images_of_a_batch_share_launches() -> None:
    """32 at a time, their tables and then themselves; results are those of each by itself."""
    count = 40
    images = [image_of(20 + i, 30) for i in range(count)]
    out = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    take_launches()
    overload = torch.ops.mobilevit_fast.resize_crop_batch.cuda
    overload(images, [9, 10] * count, [0, 1] * count, BILINEAR, [False] * count, False, out)
    launches = take_launches()
    assert [launch.name for launch in launches] == ["MakeResizeTables", "ResizeCrop"] * 2
    assert [launch.blocks for launch in launches[::2]] == [32, 8]
    for image, result in zip(images, out, strict=True):
        alone = torch.zeros_like(result)
        torch.ops.mobilevit_fast.resize_crop.cuda(image, [9, 10], [0, 1], BILINEAR, False, False, alone)
        assert torch.equal(result, alone)
