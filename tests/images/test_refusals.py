"""Bad input: one line that says what was expected and what came, with the index and the path."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mobilevit_fast.images import ImageError, MobileViTImageProcessor
from tests.images.pictures import noise, picture

GOOD = noise((30, 50, 3))
PROCESSOR = MobileViTImageProcessor(size=20, crop_size=16)


def refused(message: str, images: Any, *args: Any, error: type[Exception] = ImageError, **overrides: Any) -> None:
    with pytest.raises(error) as caught:
        PROCESSOR(images, *args, **overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "expected at least one image, got an empty list"),
        (((), []), "expected at least one image, got an empty tuple"),
        (np.zeros((0, 3, 30, 50), np.uint8), "expected at least one image, got an empty ndarray"),
        (torch.zeros(0, 3, 30, 50), "expected at least one image, got an empty Tensor"),
        ([GOOD, GOOD[0, 0]], "image 1: expected an array of 3 axes, or 4 for a batch, got shape (3,)"),
        (
            np.zeros((1, 1, 3, 4, 5)),
            "image 0: expected an array of 3 axes, or 4 for a batch, got shape (1, 1, 3, 4, 5)",
        ),
        (
            [GOOD, np.zeros((5, 6, 7), np.uint8)],
            "image 1: expected 1, 3 or 4 channels along the first or the last axis",
        ),
        (
            [GOOD, np.zeros((3, 0, 7), np.uint8)],
            "image 1: expected at least one pixel, got height and width (0, 7)",
        ),
        (torch.zeros(7, 0, 3), "image 0: expected at least one pixel, got height and width (7, 0)"),
        (
            [GOOD, Image.new("RGB", (0, 9))],
            "image 1: expected at least one pixel, got height and width (9, 0)",
        ),
        (
            np.zeros((3, 5, 5), np.complex64),
            "image 0: expected boolean, integer or floating point values, got complex64",
        ),
        (np.full((3, 5, 5), "x"), "image 0: expected boolean, integer or floating point values, got <U1"),
        (
            GOOD.astype(np.int32) + 70000,
            "expected whole numbers within [0, 255], or within [0, 65535] of 16 bits, got int32 within [70000, 70255]",
        ),
        (GOOD.astype(np.float32) - 500, "to resize, got float32 within [-500.0, -245.0]"),
        (
            noise((3, 5, 5), "float32") * 2,
            "image 0: expected fractions within [0, 1] or whole numbers within [0, 255]",
        ),
        (np.full((3, 5, 5), np.nan), "to resize, got float64 within [nan, nan]"),
        (np.full((3, 5, 5), np.inf), "to resize, got float64 within [inf, inf]"),
        (b"", "image 0: expected an image in a format that Pillow reads, got 0 bytes that it does not know"),
        ([GOOD, b"no image"], "image 1: expected an image in a format that Pillow reads, got 8 bytes"),
    ],
)
def test_images(images: Any, message: str) -> None:
    refused(message, images)


@pytest.mark.parametrize("item", [None, 3, {"a": 1}, object()])
def test_things_that_are_no_image(item: Any) -> None:
    message = "image 1: expected a PIL image, a numpy array, a torch tensor, a path, encoded bytes, or a list"
    refused(f"{message} of these, got {type(item).__name__}", [GOOD, item], error=TypeError)


def test_files(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    refused(f"image 0 ({text}): expected an image in a format that Pillow reads, got a file", text)
    missing = tmp_path / "missing.png"
    refused(f"image 1 ({missing}): expected the path of an image file, got no such file", [GOOD, str(missing)])
    refused(f"image 0 ({tmp_path}): expected the path of an image file, got a folder", tmp_path)
    refused("characters): expected the path of an image file, got no such file", "x" * 10_000)
    refused("expected the path of an image file, got no such file", "a\0b")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_truncated_files(kind: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    picture(30, 50).save(stream, kind)
    data = stream.getvalue()
    path = tmp_path / "broken"
    path.write_bytes(data[: len(data) // 2])
    refused(f"image 0 ({path}): expected ", path)
    refused("image 0: expected ", path.read_bytes())


def test_lazily_broken_pil_image(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    picture(30, 50).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with Image.open(path) as opened:
        refused("image 0: expected a readable image, got mode RGB: ", opened)


def test_too_large_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    picture(30, 50).save(stream, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused("image 0: expected a readable image, got", stream.getvalue())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"input_data_format": "channels_first"},
            "expected 1, 3 or 4 channels, channels_first, got shape (30, 50, 3)",
        ),
        ({"size": {"max_height": 1, "max_width": 100}}, None),
        (
            {"size": {"max_height": 100, "max_width": 1}, "images": noise((20, 50, 3))},
            "expected at least one pixel after",
        ),
    ],
)
def test_image_and_setting_that_do_not_fit(overrides: dict[str, Any], message: str | None) -> None:
    images = overrides.pop("images", GOOD)
    if message is None:
        assert PROCESSOR(images, **overrides).pixel_values.shape == (1, 3, 16, 16)
    else:
        refused(message, images, **overrides)


def test_transparency_out_of_range() -> None:
    message = "image 0: expected floating point RGBA within [0, 1], got [0.0, 2.0]"
    refused(message, np.linspace(0, 2, 4 * 6 * 5, dtype=np.float32).reshape(4, 6, 5), do_convert_rgb=True)


def test_results_that_cannot_be_stacked() -> None:
    for tensors in ("pt", "np"):
        refused(
            "expected results of one shape to stack, got (3, 20, 33) for image 0 and (3, 33, 20) for image 2",
            [GOOD, GOOD, GOOD.transpose(1, 0, 2)],
            do_center_crop=False,
            return_tensors=tensors,
        )
    refused("got (3, 16, 16) for image 0 and (1, 16, 16) for image 1", [GOOD, noise((30, 50))])


@pytest.mark.parametrize("tensors", ["tf", "torch", 3])
def test_kind_of_result(tensors: Any) -> None:
    refused(
        f'return_tensors: expected "pt", "np" or None, got {tensors!r}',
        GOOD,
        error=ValueError,
        return_tensors=tensors,
    )


@pytest.mark.parametrize("call", [MobileViTImageProcessor, lambda **k: PROCESSOR(GOOD, **k)])
def test_unknown_keywords(call: Any) -> None:
    with pytest.raises(
        TypeError, match="MobileViTImageProcessor: unknown keyword 'sizes', 'do_pad'; expected any of do_"
    ):
        call(sizes=3, do_pad=True)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("do_resize", 1, "do_resize: expected true or false, got 1"),
        ("do_normalize", "yes", "do_normalize: expected true or false, got 'yes'"),
        ("size", 0, "size: expected shortest_edge to be a positive int in pixels, got 0"),
        ("size", -3, "size: expected shortest_edge to be a positive int in pixels, got -3"),
        ("size", True, "size: expected shortest_edge to be a positive int in pixels, got True"),
        ("size", 2.5, "size: expected an int, a pair (height, width) or a dictionary of edges, got 2.5"),
        (
            "size",
            (1, 2, 3),
            "size: expected an int, a pair (height, width) or a dictionary of edges, got (1, 2, 3)",
        ),
        ("size", (4, 2.5), "size: expected width to be a positive int in pixels, got 2.5"),
        ("size", {"longest_edge": 4}, "size: expected the keys {height, width} or {shortest_edge} or "),
        ("size", {"height": 4}, "got {'height': 4}"),
        (
            "crop_size",
            {"shortest_edge": 4},
            "crop_size: expected the keys {height, width}, got {'shortest_edge': 4}",
        ),
        ("crop_size", (0, 4), "crop_size: expected height to be a positive int in pixels, got 0"),
        (
            "resample",
            99,
            "resample: expected a PIL.Image.Resampling or its number, one of 0 (nearest), 1 (lanczos)",
        ),
        ("resample", "bilinear", "got 'bilinear'"),
        ("resample", True, "got True"),
        ("rescale_factor", "1/255", "rescale_factor: expected a number, got '1/255'"),
        ("image_mean", [0.5, "x", 0.5], "image_mean[1]: expected a number, got 'x'"),
        ("image_mean", [], "image_mean: expected one number per channel, got []"),
        ("image_std", [0.5, None, 0.5], "image_std: expected one number per channel, got [0.5, None, 0.5]"),
        (
            "input_data_format",
            "HWC",
            'input_data_format: expected "channels_first", "channels_last" or None, got ',
        ),
    ],
)
def test_values(setting: str, value: Any, message: str) -> None:
    calls = [
        lambda: MobileViTImageProcessor(**{setting: value}),
        lambda: PROCESSOR(GOOD, **{setting: value}),
        lambda: setattr(MobileViTImageProcessor(), setting, value),
        lambda: MobileViTImageProcessor.from_dict({setting: value}),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


@pytest.mark.parametrize(
    ("switch", "needed"),
    [
        ("do_resize", "size"),
        ("do_resize", "resample"),
        ("do_rescale", "rescale_factor"),
        ("do_center_crop", "crop_size"),
        ("do_normalize", "image_mean"),
        ("do_normalize", "image_std"),
    ],
)
def test_missing_values(switch: str, needed: str) -> None:
    message = f"{needed}: expected a value because {switch} is true, got None"
    refused(message, GOOD, error=ValueError, **{switch: True, needed: None})
    off = dict.fromkeys(("do_resize", "do_rescale", "do_center_crop", "do_normalize"), False)
    PROCESSOR(GOOD, **off, **{needed: None})


def test_division_by_zero() -> None:
    refused(
        "image_std: expected numbers other than 0",
        GOOD,
        error=ValueError,
        do_normalize=True,
        image_std=[1, 0, 1],
    )
    refused("image_std: expected numbers other than 0", GOOD, error=ValueError, do_normalize=True, image_std=0)
