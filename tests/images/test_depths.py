"""The same picture by path, bytes, PIL object and array: 16 bits, fractions, transparency, unclear axes."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobilevit_fast.images import ImageError, MobileViTImageProcessor
from tests.images.pictures import noise, peer

AS_IT_IS = {"do_resize": False, "do_center_crop": False, "do_flip_channel_order": False}
PROCESSORS = [MobileViTImageProcessor(), MobileViTImageProcessor(**AS_IT_IS)]
GREY_16 = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
EIGHT = (GREY_16 >> 8).astype(np.uint8)


def saved(picture: Image.Image, path: Path) -> Path:
    picture.save(path)
    return path


def prepared(processor: Any, image: Any, **options: Any) -> np.ndarray:
    """Always of three channels, which files have without being asked."""
    values = processor(image, return_tensors="np", **options)["pixel_values"]
    return np.repeat(values, 3, axis=1) if values.shape[1] == 1 else values


def as_mode(mode: str) -> Image.Image:
    if mode == "I;16B":
        return Image.frombytes(mode, (80, 60), GREY_16.astype(">u2").tobytes())
    return Image.fromarray(GREY_16.astype({"I;16": np.uint16, "I": np.int32}[mode]))


WAYS: dict[str, Callable[[Path], Any]] = {
    "png": lambda folder: saved(as_mode("I;16"), folder / "a.png"),
    "tiff": lambda folder: saved(as_mode("I;16"), folder / "a.tiff"),
    "big tiff": lambda folder: saved(as_mode("I;16B"), folder / "b.tiff"),
    "32 bit tiff": lambda folder: saved(as_mode("I"), folder / "c.tiff"),
    "bytes": lambda folder: saved(as_mode("I;16"), folder / "a.png").read_bytes(),
    "opened": lambda folder: Image.open(saved(as_mode("I;16"), folder / "a.png")),
    "I;16": lambda folder: as_mode("I;16"),
    "I;16B": lambda folder: as_mode("I;16B"),
    "I": lambda folder: as_mode("I"),
    "uint16": lambda folder: GREY_16,
    "big uint16": lambda folder: GREY_16.astype(">u2"),
    "int32": lambda folder: GREY_16.astype(np.int32),
    "channels": lambda folder: np.repeat(GREY_16[None], 3, axis=0),
    "tensor": lambda folder: torch.from_numpy(GREY_16),
    "int64 tensor": lambda folder: torch.from_numpy(GREY_16.astype(np.int64)),
}


@pytest.mark.parametrize("do_convert_rgb", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_16_bits_are_scaled_whichever_way_they_come(way: str, do_convert_rgb: bool, tmp_path: Path) -> None:
    for processor in PROCESSORS:
        expected = prepared(processor, EIGHT)
        got = prepared(processor, WAYS[way](tmp_path), do_convert_rgb=do_convert_rgb)
        np.testing.assert_array_equal(got, expected)
    assert 0.45 < got.mean() < 0.55


def test_colours_of_16_bits_are_scaled_as_pillow_scales_those_of_files(tmp_path: Path) -> None:
    colours = np.stack([GREY_16, GREY_16[::-1], GREY_16[:, ::-1]], axis=2)
    (tmp_path / "a.png").write_bytes(png_of_16_bits(colours))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
    for processor in PROCESSORS:
        np.testing.assert_array_equal(prepared(processor, colours), prepared(processor, tmp_path / "a.png"))


def png_of_16_bits(colours: np.ndarray) -> bytes:
    """Pillow cannot write them."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "values", [GREY_16.astype(np.int32) + 1, GREY_16.astype(np.int32) - 9], ids=["large", "negative"]
)
def test_what_is_no_depth_of_images_is_refused_whichever_way(values: np.ndarray, tmp_path: Path) -> None:
    picture = Image.fromarray(values)
    for image in (values, torch.from_numpy(values), picture, saved(picture, tmp_path / "a.tiff")):
        for processor in PROCESSORS:
            for do_convert_rgb in (False, True):
                with pytest.raises(
                    ImageError, match=r"or within \[0, 65535\] of 16 bits, got int32 within \[-?\d+, 65"
                ):
                    processor(image, do_convert_rgb=do_convert_rgb)


@pytest.mark.parametrize("do_convert_rgb", [False, True])
def test_fractions_in_mode_f(do_convert_rgb: bool, tmp_path: Path) -> None:
    fractions = (GREY_16 / 65535).astype(np.float32)
    picture = Image.fromarray(fractions)
    ways = [fractions, picture, saved(picture, tmp_path / "a.tiff"), (tmp_path / "a.tiff").read_bytes()]
    for processor in PROCESSORS:
        found = [prepared(processor, one, do_convert_rgb=do_convert_rgb, do_rescale=False) for one in ways]
        for one in found[1:]:
            np.testing.assert_array_equal(one, found[0])
        assert 0.4 < found[0].mean() < 0.55
        for one in ways:
            with pytest.warns(UserWarning, match=r"its values lie within \[0, 1\]"):
                processor(one, do_convert_rgb=do_convert_rgb)


@pytest.mark.parametrize("do_convert_rgb", [False, True])
def test_large_numbers_in_mode_f(do_convert_rgb: bool, tmp_path: Path) -> None:
    values = GREY_16.astype(np.float32)
    picture = Image.fromarray(values)
    for image in (values, picture, saved(picture, tmp_path / "a.tiff"), (tmp_path / "a.tiff").read_bytes()):
        for processor in PROCESSORS:
            with pytest.raises(ImageError, match=r"expected .*255.*65535\.0"):
                processor(image, do_convert_rgb=do_convert_rgb)


TRANSPARENT = noise((30, 50, 4))
TRANSPARENT[:, :, 3] = np.linspace(0, 255, 50).astype(np.uint8)


def transparent(mode: str) -> Image.Image:
    picture = Image.fromarray(TRANSPARENT)
    if mode == "P":
        palette = picture.convert("RGB").quantize(16)
        palette.info["transparency"] = 3
        return palette
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white_where_rgb_is_asked_for(mode: str, tmp_path: Path) -> None:
    picture = transparent(mode)
    content = io.BytesIO()
    picture.save(content, "PNG", **({"transparency": 3} if mode == "P" else {}))
    (tmp_path / "a.png").write_bytes(content.getvalue())
    opened = Image.open(io.BytesIO(content.getvalue()))
    theirs = peer(do_convert_rgb=True)
    for options in ({}, AS_IT_IS):
        expected = theirs(opened, return_tensors="np", **options)["pixel_values"]
        for image in (tmp_path / "a.png", str(tmp_path / "a.png"), content.getvalue(), opened):
            ours = MobileViTImageProcessor(do_convert_rgb=True)(image, return_tensors="np", **options)["pixel_values"]
            np.testing.assert_array_equal(ours, expected)


def test_without_it_files_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    path = saved(transparent("RGBA"), tmp_path / "a.png")
    expected = peer()(str(path), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(MobileViTImageProcessor()(path, return_tensors="np")["pixel_values"], expected)
    assert expected.shape[1] == 3


@pytest.mark.parametrize("shape", [(1, 50, 3), (4, 4, 3), (3, 50, 3), (3, 40, 4), (1, 2, 1), (4, 9, 1)])
@pytest.mark.parametrize("tensor", [False, True])
def test_axes_that_could_both_be_channels(
    shape: tuple[int, ...], tensor: bool, caplog: pytest.LogCaptureFixture
) -> None:
    image = noise(shape)
    given = torch.from_numpy(image) if tensor else image
    processor = MobileViTImageProcessor(**AS_IT_IS)
    with pytest.warns(UserWarning, match="image 0: its shape .* could have channels first or last"):
        ours = processor(given, return_tensors="np")["pixel_values"]
    theirs = peer(**AS_IT_IS | {"do_flip_channel_order": False})(image, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(ours, theirs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data_format in ("channels_first", "channels_last"):
            processor(given, input_data_format=data_format)


@pytest.mark.parametrize("shape", [(3, 50, 5), (50, 3, 3), (2, 9, 3), (1, 9, 9), (9, 9, 4)])
def test_others_are_clear(shape: tuple[int, ...]) -> None:
    MobileViTImageProcessor(**AS_IT_IS)(noise(shape))  # warnings are errors here


@pytest.mark.parametrize("kind", ["array", "tensor", "I"])
@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (-1, {"do_reduce_labels": True}, r"expected class ids within \[0, 255\] to resize a map, .* got -1$"),
        (-100, {}, r"expected class ids within \[0, 255\] to resize a map, .* got -100$"),
        (256, {"do_reduce_labels": True}, r"expected class ids within \[0, 255\] to resize a map, .* got 256$"),
        (-1, {"do_reduce_labels": True, "do_resize": False}, r"expected class ids of at least 0 to reduce, got -1$"),
    ],
    ids=str,
)
def test_class_ids_of_a_map_are_named_as_they_came(
    value: int, options: dict[str, Any], message: str, kind: str
) -> None:
    labels = np.full((30, 50), 7, np.int32)
    labels[3, 4] = value
    given: Any = {"array": labels, "tensor": torch.from_numpy(labels)}.get(kind)
    given = Image.fromarray(labels) if given is None else given
    with pytest.raises(ImageError, match="^segmentation map 0: " + message):
        MobileViTImageProcessor()(noise((30, 50, 3)), given, **options)


def test_fractions_in_a_map_are_named() -> None:
    labels = np.full((30, 50), 7, np.float32)
    for value, shown in ((2.5, r"2\.5"), (np.nan, "nan")):
        labels[3, 4] = value
        with pytest.raises(ImageError, match=f"expected whole numbers as class ids, got {shown} "):
            MobileViTImageProcessor()(noise((30, 50, 3)), labels, do_reduce_labels=True)


def test_ids_that_are_not_resized_may_be_any() -> None:
    labels = np.array([[-100, 3], [1000, 255]])
    off = {"do_resize": False, "do_center_crop": False}
    assert MobileViTImageProcessor()(noise((2, 2, 5), seed=1).transpose(2, 0, 1)[:3], labels, **off)[
        "labels"
    ].tolist() == [labels.tolist()]
