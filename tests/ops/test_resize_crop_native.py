"""The resize of the CPU library against Pillow itself, bit for bit, in every variant of this machine."""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from mobilevit_fast.images.resizing import rows_come_first, supports_pillow
from mobilevit_fast.ops import resize_crop
from mobilevit_fast.ops.resize_crop import CHANNELS, FILTERS
from tests.ops.variants import ISAS, using_isa

if not supports_pillow().ok:
    pytest.skip(supports_pillow().reason, allow_module_level=True)

CHUNKS, CASES_OF_CHUNK = 20, 100
SIZES = (8, 40, 40, 120, 120, 300, 700)
"""Bounds of the random edges, in pixels."""
MARK = 77
"""What is in results before, and around them after."""


class Case(NamedTuple):
    """An image's size, the size after the resize, a crop and the number of a filter."""

    size: tuple[int, int]
    resized: tuple[int, int]
    crop: tuple[int, int]
    channels: int
    resample: int


def random_case(generator: np.random.Generator) -> Case:
    """Sizes up and down, with edges that stay, with crops larger, smaller and odd, and tall images that shrink."""
    bound = int(generator.choice(SIZES))
    height, width, new_height, new_width = (int(edge) for edge in generator.integers(1, bound + 1, 4))
    kind = int(generator.integers(8))
    if kind == 0:
        new_height = height
    elif kind == 1:
        new_width = width
    elif kind == 2:
        new_height, new_width = max(1, height // 3), max(1, width - int(generator.integers(0, 3)))
    crop_height, crop_width = (int(edge) for edge in generator.integers(1, bound + 20, 2))
    if generator.integers(4) == 0:
        crop_height, crop_width = new_height, new_width
    channels, resample = int(generator.choice([1, 3, 3])), int(generator.choice([2, 2, 3, 3, 1, 4, 5]))
    return Case((height, width), (new_height, new_width), (crop_height, crop_width), channels, resample)


FIXED = [
    ((1, 1), (288, 288), (256, 256)),
    ((1, 50), (31, 40), (256, 256)),
    ((50, 1), (40, 31), (33, 31)),
    ((2, 3), (224, 336), (224, 224)),
    ((256, 256), (256, 256), (256, 256)),
    ((256, 256), (256, 256), (255, 77)),
    ((288, 288), (288, 288), (256, 256)),
    ((375, 500), (288, 384), (256, 256)),
    ((500, 375), (384, 288), (256, 256)),
    ((480, 640), (224, 298), (256, 256)),
    ((2000, 50), (400, 47), (256, 256)),
    ((1080, 1920), (288, 512), (256, 256)),
    ((3000, 4000), (288, 384), (256, 256)),
    ((4000, 3000), (1, 1), (3, 3)),
    ((300, 7), (2, 900), (5, 256)),
]


def image_of(case: Case, generator: np.random.Generator) -> np.ndarray:
    """Random pixels, of which a third are black or white, so that sums go beyond both."""
    pixels = generator.integers(0, 256, (*case.size, case.channels), np.uint8)
    extreme = generator.integers(0, 6, pixels.shape[:2], np.uint8)
    pixels[extreme == 0] = 0
    pixels[extreme == 1] = 255
    return pixels


def by_pillow(pixels: np.ndarray, case: Case) -> np.ndarray:
    """(channels, *crop): resized by Pillow, then cropped."""
    grey = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    resized = np.asarray(picture.resize(case.resized[::-1], Resampling(case.resample)))
    room = [(edge - crop) // 2 for edge, crop in zip(case.resized, case.crop, strict=True)]
    result = np.zeros((*case.crop, case.channels), np.uint8)
    rows, columns = (range(max(0, -a), min(c, e - a)) for a, c, e in zip(room, case.crop, case.resized, strict=True))
    resized = resized.reshape(*case.resized, case.channels)
    result[rows.start : rows.stop, columns.start : columns.stop] = resized[
        rows.start + room[0] : rows.stop + room[0], columns.start + room[1] : columns.stop + room[1]
    ]
    return result.transpose(2, 0, 1)


def strided(pixels: np.ndarray, gap: int) -> Tensor:
    """The same pixels with so many bytes between rows, which end where the memory does."""
    height, width, channels = pixels.shape
    pitch = width * channels + gap
    memory = torch.full((height * pitch - gap,), MARK, dtype=torch.uint8)
    view = memory.as_strided(pixels.shape, (pitch, channels, 1))
    view.copy_(torch.from_numpy(pixels))
    return view


def outputs(channels: int, height: int, width: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Tensors that a result goes to, (channels, height, width), and the memory around each."""
    planes = torch.full((3, channels, height, width), MARK, dtype=torch.uint8)
    interleaved = torch.full((3, height, width, channels), MARK, dtype=torch.uint8)
    spread = torch.full((channels + 1, height + 2, 2 * width + 3), MARK, dtype=torch.uint8)
    return {
        "planes": (planes[1], planes),
        "interleaved": (interleaved[1].permute(2, 0, 1), interleaved),
        "spread": (spread[:channels, 1 : height + 1, 1 : 2 * width + 1 : 2], spread),
    }


def check(case: Case, seed: int) -> None:
    generator = np.random.default_rng(seed)
    pixels = image_of(case, generator)
    expected = by_pillow(pixels, case)
    for isa in ISAS:
        layouts = outputs(case.channels, *case.crop)
        name = str(generator.choice(list(layouts)))
        out, memory = layouts[name]
        flip = bool(generator.integers(2))
        image = strided(pixels, int(generator.integers(0, 5)))
        rows_first = rows_come_first(case.size, case.resized)
        with using_isa(isa):
            result = resize_crop(
                image, case.resized, case.crop, case.resample, rows_first=rows_first, flip_channels=flip, out=out
            )
        assert result is out
        assert np.array_equal(out.numpy(), expected[::-1] if flip else expected), (case, isa, name, flip)
        out.fill_(MARK)
        assert bool((memory == MARK).all()), (case, isa, name, "written outside of the result")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_sizes_are_resized_as_pillow_does(chunk: int) -> None:
    generator = np.random.default_rng(chunk)
    for i in range(CASES_OF_CHUNK):
        check(random_case(generator), 1000 * chunk + i)


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_chosen_sizes_are_resized_as_pillow_does(channels: int, resample: int) -> None:
    for i, (size, resized, crop) in enumerate(FIXED):
        if max(size) <= 2000 or (channels, resample) in ((3, Resampling.BILINEAR), (1, Resampling.BICUBIC)):
            check(Case(size, resized, crop, channels, resample), i)


def test_the_order_of_passes_matters_and_is_pillows() -> None:
    """Just around where Pillow 13 turns it, in both directions of the width."""
    turned = 0
    generator = np.random.default_rng(0)
    for i in range(200):
        width, lost = int(generator.integers(40, 90)), int(generator.integers(-12, 13))
        height = int(generator.integers(60, 120))
        new_height = min(119, max(1, height - 2 * lost + int(generator.integers(-2, 3))))
        case = Case((height, width), (new_height, width - lost), (new_height, width - lost), 1, 3)
        check(case, i)
        orders = [
            resize_crop(torch.from_numpy(image_of(case, np.random.default_rng(i))), *case[1:3], 3, rows_first=first)
            for first in (False, True)
        ]
        turned += not torch.equal(*orders)
    assert turned > 100


def test_an_offset_moves_the_crop() -> None:
    image = torch.from_numpy(image_of(Case((50, 60), (0, 0), (0, 0), 3, 2), np.random.default_rng(0)))
    whole = resize_crop(image, (40, 45), (40, 45), 2)
    assert torch.equal(resize_crop(image, (40, 45), (7, 9), 2, offset=(3, 30)), whole[:, 3:10, 30:39])
    moved = resize_crop(image, (40, 45), (10, 10), 2, offset=(-4, 40))
    assert torch.equal(moved[:, 4:, :5], whole[:, :6, 40:])
    assert moved[:, :4].sum() == moved[:, :, 5:].sum() == 0
    for offset in [(40, 0), (0, 45), (-10, 0), (0, -10), (2**31 - 1, 0)]:
        assert resize_crop(image, (40, 45), (10, 10), 2, offset=offset).sum() == 0


def test_a_result_of_nothing_is_left_alone() -> None:
    image = torch.zeros(5, 6, 3, dtype=torch.uint8)
    assert resize_crop(image, (4, 4), (0, 3), 2).shape == (3, 0, 3)
    assert resize_crop(image, (4, 4), (3, 0), 2).shape == (3, 3, 0)


IMAGE = torch.zeros(5, 6, 3, dtype=torch.uint8)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "float": ({"image": IMAGE.float()}, "image and out of type torch.uint8, got torch.float32"),
    "channels": ({"image": torch.zeros(5, 6, 4, dtype=torch.uint8)}, r"\(height, width, 1 or 3\)"),
    "rank": ({"image": torch.zeros(1, 5, 6, 3, dtype=torch.uint8)}, r"\(height, width, 1 or 3\)"),
    "planes": ({"image": torch.zeros(3, 5, 6, dtype=torch.uint8).permute(1, 2, 0)}, "follow one another"),
    "empty": ({"image": IMAGE[:0]}, "edges of 1 to"),
    "size": ({"size": [0, 4]}, "two edges of 1 to"),
    "three sizes": ({"size": [1, 2, 3]}, "size"),
    "huge": ({"size": [2**31, 4]}, "two edges of 1 to"),
    "offset": ({"offset": [2**31, 0]}, "an offset of fewer than"),
    "nearest": ({"resample": 0}, "number of a filter"),
    "no filter": ({"resample": 6}, "number of a filter"),
    "out type": ({"out": torch.zeros(3, 4, 4)}, "out of type torch.uint8|torch.float32"),
    "out shape": ({"out": torch.zeros(1, 4, 4, dtype=torch.uint8)}, r"out of shape \(3, height, width\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_refused(name: str) -> None:
    changed, message = REFUSED[name]
    out = torch.zeros(3, 4, 4, dtype=torch.uint8)
    given: dict[str, Any] = {"image": IMAGE, "size": [4, 4], "offset": [0, 0], "resample": 2, "out": out} | changed
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mobilevit_fast.resize_crop.cpu(**given, rows_first=False, flip_channels=False)


def test_freed_memory_is_refused() -> None:
    image = torch.zeros(50, 60, 3, dtype=torch.uint8)
    image.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="with memory for their shapes"):
        resize_crop(image, (40, 40), (40, 40), 2)


def test_threads_resize_at_once() -> None:
    """Eight of Python's threads, each its own sizes again and again, into views of one batch."""
    generator = np.random.default_rng(0)
    cases = [random_case(generator)._replace(crop=(64, 48), channels=3) for _ in range(8 * 6)]
    images = [image_of(case, np.random.default_rng(i)) for i, case in enumerate(cases)]
    expected = [by_pillow(*pair) for pair in zip(images, cases, strict=True)]
    batch = torch.full((len(cases), 64, 48, 3), MARK, dtype=torch.uint8).permute(0, 3, 1, 2)
    start = threading.Barrier(8)
    wrong: list[int] = []

    def work(worker: int) -> None:
        for _ in range(4):
            start.wait(timeout=60)
            for i in range(worker, len(cases), 8):
                case, image = cases[i], torch.from_numpy(images[i])
                first = rows_come_first(case.size, case.resized)
                resize_crop(image, case.resized, case.crop, case.resample, rows_first=first, out=batch[i])
                if not np.array_equal(batch[i].numpy(), expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not start.broken
    assert not wrong


def test_other_threads_run_meanwhile() -> None:
    """The kernel runs without Python's global lock: this thread counts on while another one is within a call."""
    image = torch.zeros(3000, 3000, 3, dtype=torch.uint8)
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        with using_isa("portable"):
            resize_crop(image, (1500, 1500), (1500, 1500), int(Resampling.LANCZOS))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    turns = 0
    while not done.is_set():
        time.sleep(1e-3)
        turns += 1
    thread.join()
    assert turns > 10


def test_the_operator_is_declared_as_it_is() -> None:
    """Schema, fake and mutation; of compiled code the result is the same."""
    out = torch.zeros(3, 9, 8, dtype=torch.uint8)
    image = torch.from_numpy(image_of(Case((20, 30), (0, 0), (0, 0), 3, 2), np.random.default_rng(0)))
    overload = torch.ops.mobilevit_fast.resize_crop.cpu
    torch.library.opcheck(overload, (image, [10, 12], [0, 1], 2, False, True, out))
