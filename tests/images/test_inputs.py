"""Everything that can hold an image, and what it is read as."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobilevit_fast.images import MobileViTImageProcessor
from tests.images.pictures import assert_identical, noise, peer, picture

PROCESSOR = MobileViTImageProcessor(size=20, crop_size=16)
HWC = noise((30, 50, 3))


def values(images: Any, **overrides: Any) -> np.ndarray:
    return PROCESSOR(images, return_tensors="np", **overrides)["pixel_values"]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_the_same_picture_in_every_form(tmp_path: Path) -> None:
    image = Image.fromarray(HWC)
    path = tmp_path / "picture.png"
    image.save(path)
    expected = values(image)
    forms: list[Any] = [
        HWC,
        HWC.transpose(2, 0, 1),
        HWC.astype(np.float32),
        HWC.astype(">u2"),
        torch.from_numpy(HWC),
        torch.from_numpy(HWC).permute(2, 0, 1),
        torch.from_numpy(HWC).to(torch.bfloat16),
        torch.from_numpy(HWC).float().requires_grad_(),
        path,
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        memoryview(path.read_bytes()),
        [image],
        (image,),
        [[image]],
        HWC[None],
        torch.from_numpy(HWC)[None],
    ]
    for form in forms:
        assert_identical(values(form), expected)
    together = values(forms)
    assert_identical(together, np.repeat(expected, len(forms), axis=0))


def test_batches() -> None:
    batch = noise((4, 30, 50, 3))
    expected = np.concatenate([values(one) for one in batch])
    assert_identical(values(batch), expected)
    assert_identical(values([batch[:3], batch[3]]), expected)
    assert_identical(values(torch.from_numpy(batch).permute(0, 3, 1, 2)), expected)


def test_grey_array() -> None:
    grey = noise((30, 50))
    assert_identical(values(grey), values(Image.fromarray(grey)))
    assert_identical(values(grey, do_convert_rgb=True), values(Image.fromarray(grey), do_convert_rgb=True))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_files_are_read_as_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    picture(30, 50, mode).save(path)
    ours = values(path)
    assert ours.shape == (1, 3, 16, 16)
    assert_identical(ours, peer(size=20, crop_size=16)(str(path), return_tensors="np")["pixel_values"])
    assert_identical(ours, values(path.read_bytes()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(30, 50).save(path, exif=exif)
    expected = peer(size=20, do_center_crop=False)(str(path), return_tensors="np")["pixel_values"]
    assert expected.shape[2:] == ((20, 33) if orientation < 5 else (33, 20))
    for source in (path, path.read_bytes()):
        assert_identical(values(source, do_center_crop=False), expected)
    with Image.open(path) as opened:  # a PIL image is taken as it is, by transformers too
        expected = peer(size=20, do_center_crop=False)(opened, return_tensors="np")["pixel_values"]
        assert_identical(values(opened, do_center_crop=False), expected)
        assert expected.shape[2:] == (20, 33)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_formats(kind: str) -> None:
    data = encoded(picture(30, 50), kind)
    with Image.open(io.BytesIO(data)) as opened:
        expected = values(opened.convert("RGB"))
    assert_identical(values(data), expected)


def test_inputs_are_not_changed_nor_shared() -> None:
    for dtype in ("uint8", "float32"):
        image = noise((3, 30, 50), dtype)
        before = image.copy()
        for tensors in ("pt", "np", None):
            off = {"do_resize": False, "do_rescale": False, "do_center_crop": False}
            result = PROCESSOR(image, return_tensors=tensors, **off)["pixel_values"]
            result[0][...] = 7
            assert_identical(image, before)
    labels = noise((30, 50))
    before = labels.copy()
    PROCESSOR(HWC, labels, do_reduce_labels=True)["labels"].fill_(7)
    assert_identical(labels, before)


def test_kinds_of_result() -> None:
    as_tensor = PROCESSOR(HWC)["pixel_values"]
    assert isinstance(as_tensor, torch.Tensor)
    assert as_tensor.is_contiguous()
    as_array = PROCESSOR(HWC, return_tensors="np")["pixel_values"]
    as_list = PROCESSOR(HWC, return_tensors=None)["pixel_values"]
    assert isinstance(as_array, np.ndarray)
    assert isinstance(as_list, list)
    assert isinstance(as_list[0], np.ndarray)
    assert_identical(as_tensor, as_array)
    assert_identical(as_list[0], as_array[0])


def test_rescaling_twice_is_reported() -> None:
    fractions = noise((3, 30, 50), "float32")
    with pytest.warns(UserWarning, match=r"image 1: its values lie within \[0, 1\] and are rescaled once more") as seen:
        PROCESSOR([HWC, fractions])
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PROCESSOR([HWC, fractions], do_rescale=False)
        PROCESSOR([HWC, HWC.astype(np.float32)])
