"""The resize of the CPU library against Pillow itself, bit for bit, in every variant of this machine."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL.Image import Resampling
from torch._subclasses.fake_tensor import FakeTensorMode

from mobilevit_fast.images.resizing import rows_come_first, supports_pillow
from mobilevit_fast.kernels import Support
from mobilevit_fast.ops import resize_crop, resize_crop_batch
from mobilevit_fast.ops.registry import BackendError
from mobilevit_fast.ops.resize_crop import CHANNELS, FILTERS, supports_device
from testing.tiers import thorough_where
from tests.ops.variants import ISAS, using_isa
from tests.resizes import FIXED, MARK, REFUSED, Case, by_pillow, image_of, outputs, random_case, refused, strided

if not supports_pillow().ok:
    pytest.skip(supports_pillow().reason, allow_module_level=True)

CHUNKS, CASES_OF_CHUNK = 20, 100


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


@pytest.mark.parametrize("chunk", thorough_where(range(CHUNKS), lambda chunk: chunk >= CHUNKS // 2))
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


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_refused(name: str) -> None:
    arguments, message = refused(name)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mobilevit_fast.resize_crop.cpu(*arguments)


def test_a_batch_is_its_images() -> None:
    generator = np.random.default_rng(0)
    cases = [random_case(generator)._replace(crop=(31, 40), channels=3, resample=3) for _ in range(5)]
    images = [torch.from_numpy(image_of(case, generator)) for case in cases]
    orders = [rows_come_first(case.size, case.resized) for case in cases]
    batch = resize_crop_batch(images, [case.resized for case in cases], (31, 40), 3, rows_first=orders)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for result, image, case in zip(batch, images, cases, strict=True):
        assert np.array_equal(result.numpy(), by_pillow(image.numpy(), case))
    flipped = torch.zeros(5, 3, 31, 40, dtype=torch.uint8)
    sizes = [case.resized for case in cases]
    resize_crop_batch(images, sizes, (31, 40), 3, rows_first=orders, flip_channels=True, out=flipped)
    assert torch.equal(flipped, batch.flip(1))
    for wrong in ({"sizes": sizes[1:]}, {"rows_first": orders[1:]}, {"out": flipped[1:]}, {"crop": (31, 41)}):
        given = {"images": images, "sizes": sizes, "crop": (31, 40), "resample": 3, "out": flipped} | wrong
        with pytest.raises(ValueError, match="resize_crop_batch: expected 5 sizes and orders of passes"):
            resize_crop_batch(**given)
    with pytest.raises(ValueError, match="expected one image or more, got none"):
        resize_crop_batch([], [], (31, 40), 3)


def test_freed_memory_is_refused() -> None:
    image = torch.zeros(50, 60, 3, dtype=torch.uint8)
    image.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="an image with memory for its shape"):
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


@pytest.mark.skipif(supports_device("cuda").ok, reason="needs an installation without the CUDA library")
def test_without_its_library_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with it, the tensor stays there."""
    with FakeTensorMode():
        image = torch.empty(20, 30, 3, dtype=torch.uint8, device="cuda")
        with pytest.raises(BackendError, match=r"mobilevit_fast\.resize_crop: the CUDA library "):
            resize_crop(image, (10, 12), (9, 8), 2)
        monkeypatch.setattr(sys.modules[resize_crop.__module__], "supports_device", lambda device: Support(True))
        assert resize_crop(image, (10, 12), (9, 8), 2).device.type == "cuda"
