"""The resize of the CUDA library is bit for bit Pillow's and the CPU library's, wherever image and result lie."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Resampling
from torch import Tensor

from mobilevit_fast.images.resizing import resize_and_crop, rows_come_first, supports_pillow
from mobilevit_fast.ops import resize_crop, resize_crop_batch
from mobilevit_fast.ops.resize_crop import CHANNELS, FILTERS
from testing.tiers import thorough, thorough_where
from tests.cuda.conftest import EMULATED
from tests.resizes import FIXED, MARK, REFUSED, Case, by_pillow, image_of, outputs, random_case, refused, strided

if not supports_pillow().ok:
    pytest.skip(supports_pillow().reason, allow_module_level=True)

CHUNKS, CASES_OF_CHUNK = 10, 20
LONGEST_EMULATED = 310
needs_gpu = pytest.mark.skipif(EMULATED, reason="needs a GPU")


def resize(
    image: Tensor,
    resized: tuple[int, int],
    out: Tensor,
    resample: int,
    *,
    offset: Sequence[int] | None = None,
    rows_first: bool = False,
    flip: bool = False,
) -> None:
    """The operator of the CUDA library, by its name, since emulated tensors are on the CPU."""
    if offset is None:
        offset = [(edge - kept) // 2 for edge, kept in zip(resized, out.shape[1:], strict=True)]
    overload: Any = torch.ops.mobilevit_fast.resize_crop.cuda
    overload(image, list(resized), list(offset), resample, rows_first, flip, out)


def check(case: Case, seed: int, device: torch.device) -> None:
    generator = np.random.default_rng(seed)
    pixels = image_of(case, generator)
    expected = by_pillow(pixels, case)
    layouts = outputs(case.channels, *case.crop, device)
    name = list(layouts)[seed % len(layouts)]
    out, memory = layouts[name]
    flip = bool(generator.integers(2))
    image = strided(pixels, int(generator.integers(0, 5)), int(generator.integers(0, 4)), device)
    resize(image, case.resized, out, case.resample, rows_first=rows_come_first(case.size, case.resized), flip=flip)
    assert np.array_equal(out.cpu().numpy(), expected[::-1] if flip else expected), (case, name, flip)
    out.fill_(MARK)
    assert bool((memory == MARK).all()), (case, name, "written outside of the result")


def is_small(case: Case) -> bool:
    return max(*case.size, *case.resized, *case.crop) <= LONGEST_EMULATED


@pytest.mark.parametrize("chunk", thorough_where(range(CHUNKS), lambda chunk: chunk >= 3))
def test_random_sizes_are_resized_as_pillow_does(chunk: int, device: torch.device) -> None:
    generator = np.random.default_rng(chunk)
    checked = 0
    while checked < CASES_OF_CHUNK:
        case = random_case(generator)
        if not EMULATED or is_small(case):
            check(case, 100 * chunk + checked, device)
            checked += 1


@pytest.mark.parametrize(
    ("channels", "resample"),
    thorough_where(itertools.product(CHANNELS, FILTERS), lambda case: case[0] == 1 and case[1] != Resampling.BILINEAR),
)
def test_chosen_sizes_are_resized_as_pillow_does(channels: int, resample: int, device: torch.device) -> None:
    for i, sizes in enumerate(FIXED):
        case = Case(*sizes, channels, resample)
        if not EMULATED or is_small(case):
            check(case, i, device)


SHORT, GENERAL, WITHOUT_RING, FIRST = "short", "general", "without ring", "rows first"
WAYS = {
    "three": Case((40, 50), (31, 39), (32, 36), 3, Resampling.BILINEAR),
    "four": Case((61, 75), (33, 41), (32, 36), 3, Resampling.HAMMING),
    "enlarged": Case((20, 24), (45, 53), (44, 52), 3, Resampling.BILINEAR),
    "box": Case((33, 21), (44, 66), (40, 64), 3, Resampling.BOX),
    "bicubic": Case((40, 50), (31, 39), (32, 36), 3, Resampling.BICUBIC),
    "long windows": Case((76, 65), (10, 8), (8, 8), 3, Resampling.LANCZOS),
    "more rows than a ring": Case((300, 40), (3, 31), (3, 32), 3, Resampling.BILINEAR),
    "the longest ring": Case((250, 20), (4, 19), (4, 16), 3, Resampling.BILINEAR),
    "tall": Case((120, 30), (50, 20), (48, 24), 3, Resampling.BILINEAR),
    "tall, bicubic": Case((120, 30), (50, 20), (48, 24), 3, Resampling.BICUBIC),
    "fewer pixels than a window": Case((2, 3), (30, 40), (33, 44), 3, Resampling.LANCZOS),
    "a pixel": Case((1, 1), (9, 12), (7, 12), 3, Resampling.BICUBIC),
    "a column": Case((50, 1), (31, 8), (33, 8), 3, Resampling.BILINEAR),
}
"""One case at least for each way through the kernel; widths of crops are multiples of four."""


# Of one channel, a batch below goes every way.
GREY = ["three", "bicubic", "more rows than a ring", "tall", "a pixel"]


@pytest.mark.parametrize(
    ("way", "channels"),
    thorough_where(itertools.product(WAYS, CHANNELS), lambda case: case[1] == 1 and case[0] not in GREY),
)
def test_every_way_at_every_address(way: str, channels: int, device: torch.device) -> None:
    """Images and results that begin anywhere, rows with gaps, all layouts of results; nothing beside is touched."""
    case = WAYS[way]._replace(channels=channels)
    pixels = image_of(case, np.random.default_rng(0))
    expected = by_pillow(pixels, case)
    rows_first = rows_come_first(case.size, case.resized)
    height, width = case.crop
    for start in range(4):
        for flip in (False, True):
            image = strided(pixels, 3 - start, start, device)
            memory = torch.full((start + height * (width * channels + 4),), MARK, dtype=torch.uint8, device=device)
            for strides in ((1, width * channels + 4, channels), (height * width, width, 1)):
                memory.fill_(MARK)
                out = memory.as_strided((channels, height, width), strides, start)
                resize(image, case.resized, out, case.resample, rows_first=rows_first, flip=flip)
                assert np.array_equal(out.cpu().numpy(), expected[::-1] if flip else expected), (start, flip, strides)
                out.fill_(MARK)
                assert bool((memory == MARK).all())


@pytest.mark.parametrize("seed", [0, thorough(1)])
@pytest.mark.parametrize("resample", [Resampling.BILINEAR, Resampling.BICUBIC, Resampling.BOX])
def test_both_orders_of_passes_are_those_of_the_cpu_library(resample: int, seed: int, device: torch.device) -> None:
    generator = np.random.default_rng(seed)
    for i in range(15):
        case = random_case(generator)._replace(resample=resample)
        if not is_small(case):
            continue
        image = torch.from_numpy(image_of(case, generator))
        offset = [int(number) for number in generator.integers(-40, 41, 2)]
        first = i % 2 == 0
        expected = resize_crop(image, case.resized, case.crop, resample, offset=offset, rows_first=first)
        out = torch.full_like(expected, MARK, device=device)
        resize(image.to(device), case.resized, out, resample, offset=offset, rows_first=first)
        assert torch.equal(out.cpu(), expected), (case, offset, first)


def test_a_crop_outside_of_the_image_is_zero(device: torch.device) -> None:
    image = torch.full((50, 60, 3), 255, dtype=torch.uint8, device=device)
    for offset in [(40, 0), (0, 45), (-10, 0), (0, -10), (2**31 - 1, 0), (-(2**31) + 1, 2**31 - 1)]:
        for rows_first in (False, True):
            out = torch.full((3, 10, 10), MARK, dtype=torch.uint8, device=device)
            resize(image, (40, 45), out, Resampling.BILINEAR, offset=offset, rows_first=rows_first)
            assert not out.any(), offset


def test_a_result_of_nothing_is_left_alone(device: torch.device) -> None:
    image = torch.zeros(5, 6, 3, dtype=torch.uint8, device=device)
    for shape in ((3, 0, 3), (3, 3, 0)):
        resize(image, (4, 4), torch.empty(shape, dtype=torch.uint8, device=device), Resampling.BILINEAR)


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_refused(name: str, device: torch.device) -> None:
    arguments, message = refused(name, device)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mobilevit_fast.resize_crop.cuda(*arguments)


def test_more_blocks_than_a_grid_has_are_refused(device: torch.device) -> None:
    image = torch.zeros(5, 6, 3, dtype=torch.uint8, device=device)
    out = torch.zeros(3, 1, 1, dtype=torch.uint8, device=device).expand(3, 1 << 30, 1 << 14)
    with pytest.raises(RuntimeError, match=r"mobilevit_fast\.resize_crop: expected a crop of fewer than"):
        resize(image, (4, 4), out, Resampling.BILINEAR)


def test_freed_memory_is_refused(device: torch.device) -> None:
    image = torch.zeros(50, 60, 3, dtype=torch.uint8, device=device)
    image.untyped_storage().resize_(0)
    out = torch.zeros(3, 40, 40, dtype=torch.uint8, device=device)
    with pytest.raises(RuntimeError, match="an image with memory for its shape"):
        resize(image, (40, 40), out, Resampling.BILINEAR)


def test_the_operator_is_declared_as_it_is(device: torch.device) -> None:
    out = torch.zeros(3, 9, 8, dtype=torch.uint8, device=device)
    image = torch.arange(20 * 30 * 3, device=device).to(torch.uint8).view(20, 30, 3)
    overload = torch.ops.mobilevit_fast.resize_crop.cuda
    torch.library.opcheck(overload, (image, [10, 12], [0, 1], 2, False, True, out))


def resize_batch(images: Sequence[Tensor], cases: Sequence[Case], out: Tensor, *, flip: bool = False) -> None:
    """The same for many images of one crop, filter and number of channels."""
    offsets = [(edge - kept) // 2 for c in cases for edge, kept in zip(c.resized, c.crop, strict=True)]
    sizes, orders = [edge for c in cases for edge in c.resized], [rows_come_first(c.size, c.resized) for c in cases]
    overload: Any = torch.ops.mobilevit_fast.resize_crop_batch.cuda
    overload(list(images), sizes, offsets, cases[0].resample, orders, flip, out)


@pytest.mark.parametrize(
    ("channels", "resample"),
    [
        (1, Resampling.BICUBIC),
        (3, Resampling.BILINEAR),
        thorough((1, Resampling.BILINEAR)),
        thorough((3, Resampling.BICUBIC)),
    ],
)
def test_images_of_many_sizes_go_together(channels: int, resample: int, device: torch.device) -> None:
    """In every way through the kernel at once, at every address, into layouts of words and bytes."""
    for height, width in ((20, 24), (19, 17)):
        cases = [way._replace(channels=channels, resample=resample, crop=(height, width)) for way in WAYS.values()]
        pixels = [image_of(case, np.random.default_rng(i)) for i, case in enumerate(cases)]
        images = [strided(image, i % 3, i % 4, device) for i, image in enumerate(pixels)]
        planes = torch.full((len(cases), channels, height, width), MARK, dtype=torch.uint8, device=device)
        for out in (planes, planes.to(memory_format=torch.channels_last)):
            resize_batch(images, cases, out, flip=height == 20)
            for result, image, case in zip(out.cpu().numpy(), pixels, cases, strict=True):
                expected = by_pillow(image, case)
                assert np.array_equal(result, expected[::-1] if height == 20 else expected), case


def test_wrong_batches_are_refused(device: torch.device) -> None:
    cases = [Case((5, 6), (4, 4), (4, 4), 3, Resampling.BILINEAR)] * 2
    image = torch.zeros(5, 6, 3, dtype=torch.uint8, device=device)
    out = torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device=device)
    resize_batch([image, image], cases, out)
    for images, wrong in (([image] * 3, out), ([image] * 2, out[:1]), ([image] * 2, out[0]), ([image], out)):
        with pytest.raises(RuntimeError, match=r"resize_crop_batch: expected two sizes and offsets, .* for each of"):
            resize_batch(images, cases, wrong)
    for second, message in ((image[..., :1], "follow one another"), (image[..., :1].clone(), r"\(images, 1, height")):
        with pytest.raises(RuntimeError, match=rf"resize_crop_batch: expected .*{message}"):
            resize_batch([image, second], cases, out)
    with pytest.raises(RuntimeError, match="out of type"):
        resize_batch([image, image], cases, out.float())


def test_the_batch_is_declared_as_it_is(device: torch.device) -> None:
    image = torch.arange(20 * 30 * 3, device=device).to(torch.uint8).view(20, 30, 3)
    out = torch.zeros(2, 3, 9, 8, dtype=torch.uint8, device=device)
    overload = torch.ops.mobilevit_fast.resize_crop_batch.cuda
    arguments = ([image, image[3:]], [10, 12, 9, 9], [0, 1, 0, 0], 2, [False, True], True, out)
    torch.library.opcheck(overload, arguments)


@needs_gpu
def test_tensors_on_a_gpu_take_this_kernel(device: torch.device) -> None:
    """By the public function and by the processor's, whose other cases go to Pillow; in a graph as well."""
    case = Case((375, 500), (288, 384), (256, 256), 3, Resampling.BILINEAR)
    pixels = image_of(case, np.random.default_rng(0))
    image, expected = torch.from_numpy(pixels).to(device), torch.from_numpy(by_pillow(pixels, case).copy())
    result = resize_crop(image, *case[1:3], case.resample)
    assert result.is_cuda
    assert torch.equal(result.cpu(), expected)
    for resample in (Resampling.NEAREST, Resampling.LANCZOS, Resampling.BICUBIC):
        result = resize_and_crop(image, *case[1:3], resample)
        assert result.is_cuda
        assert np.array_equal(result.cpu().numpy(), by_pillow(pixels, case._replace(resample=resample)))
    graph, out = torch.cuda.CUDAGraph(), torch.zeros_like(result)
    with torch.cuda.graph(graph):
        resize_crop(image, *case[1:3], case.resample, out=out)
    graph.replay()
    assert torch.equal(out.cpu(), expected)
    batch = resize_crop_batch([image, image], [case.resized] * 2, case.crop, case.resample)
    assert torch.equal(batch.cpu(), torch.stack([expected, expected]))
    with pytest.raises(RuntimeError, match="out on cuda"):
        torch.ops.mobilevit_fast.resize_crop.cuda(image, [9, 9], [0, 0], 2, False, False, torch.zeros_like(expected))
