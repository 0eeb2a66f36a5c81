"""Bit for bit the result of transformers' Pillow-based processor."""

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilevit_fast.images import ImageError, MobileViTImageProcessor
from testing.paths import UCMERCED, needs_ucmerced
from tests.images.pictures import PIL_MODES, assert_identical, noise, peer, picture

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rescaled once more"),
    pytest.mark.filterwarnings("ignore:.*channels first or last"),
]

SMALL = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}


def compare(images: Any, processor: dict[str, Any] | None = None, **overrides: Any) -> np.ndarray:
    processor = SMALL if processor is None else processor
    ours = MobileViTImageProcessor(**processor)(images, return_tensors="np", **overrides)
    theirs = peer(**processor)(images, return_tensors="np", **overrides)
    assert_identical(ours["pixel_values"], theirs["pixel_values"])
    return ours["pixel_values"]


def compare_or_both_refuse(image: Any, processor: dict[str, Any], **options: Any) -> None:
    theirs: Any = None
    with contextlib.suppress(Exception):
        theirs = peer(**processor)(image, return_tensors="np", **options)["pixel_values"]
    if theirs is None or theirs.size == 0:
        with pytest.raises(ImageError, match=r"image 0: expected .*, got .*"):
            MobileViTImageProcessor(**processor)(image, **options)
        return
    for tensors in ("np", "pt"):
        ours = MobileViTImageProcessor(**processor)(image, return_tensors=tensors, **options)["pixel_values"]
        assert_identical(ours, theirs)


def test_defaults() -> None:
    values = compare([picture(300, 400), picture(231, 97)], processor={})
    assert values.shape == (2, 3, 256, 256)
    assert values.dtype == np.float32


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize("mode", PIL_MODES)
def test_pil_modes(mode: str, convert: bool) -> None:
    image = picture(30, 50, mode)
    if mode == "F" and not convert:  # fractions above 1: refused by both
        with pytest.raises(ValueError, match="outside the range"):
            peer(**SMALL)(image)
        with pytest.raises(ImageError, match=r"image 0: expected fractions within \[0, 1\] or whole numbers"):
            MobileViTImageProcessor(**SMALL)(image)
        return
    values = compare(image, do_convert_rgb=convert)
    if convert:
        assert values.shape[1] == 3


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_colour(mode: str) -> None:
    """Transparency that a file keeps beside the pixels counts as well."""
    image = picture(30, 50, mode)
    image.info["transparency"] = image.getpixel((3, 4))
    compare(image, do_convert_rgb=True)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "uint16", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 30, 50), (30, 50, 3), (30, 50, 1), (1, 30, 50), (4, 30, 50), (30, 50, 4)])
@pytest.mark.parametrize("convert", [False, True])
def test_array_dtypes_and_layouts(dtype: str, shape: tuple[int, ...], convert: bool) -> None:
    image = noise(shape, dtype)
    compare(image, do_convert_rgb=convert)
    compare(image, do_convert_rgb=convert, do_resize=False)
    compare(image, do_convert_rgb=convert, do_rescale=False)
    compare(image, do_convert_rgb=convert, do_resize=False, do_rescale=False, do_center_crop=False)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_whole_numbers_in_floating_point(dtype: str) -> None:
    compare(noise((3, 30, 50)).astype(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.int64, torch.bool])
def test_tensors(dtype: torch.dtype) -> None:
    compare(torch.from_numpy(noise((3, 30, 50), str(dtype).removeprefix("torch."))))
    compare(torch.from_numpy(noise((2, 30, 50, 3), str(dtype).removeprefix("torch."))))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_ambiguous_layout(data_format: str) -> None:
    compare(noise((3, 30, 3)))
    compare(noise((3, 30, 3)), input_data_format=data_format)


@pytest.mark.parametrize(
    "size",
    [
        20,
        (17, 23),
        [23, 17],
        {"height": 40, "width": 9},
        {"shortest_edge": 20},
        {"shortest_edge": 20, "longest_edge": 26},
        {"shortest_edge": 26, "longest_edge": 20},
        {"max_height": 12, "max_width": 40},
    ],
)
@pytest.mark.parametrize("square", [False, True])
def test_spellings_of_size(size: Any, square: bool) -> None:
    for height, width in [(30, 50), (50, 30), (20, 20), (20, 21), (26, 20), (1, 60)]:
        options = {"size": size, "default_to_square": square, "do_center_crop": False}
        compare_or_both_refuse(picture(height, width), SMALL, **options)


@pytest.mark.parametrize(("longest", "shape"), [(49, (20, 50)), (48, (19, 48)), (51, (20, 50))])
def test_image_that_almost_fits_its_longest_edge(longest: int, shape: tuple[int, int]) -> None:
    """An image whose short edge is right after rounding stays as it is, past the bound."""
    size = {"shortest_edge": 30, "longest_edge": longest}
    assert compare(picture(20, 50), size=size, do_center_crop=False).shape[2:] == shape
    assert compare(picture(50, 20), size=size, do_center_crop=False).shape[2:] == shape[::-1]


def test_nested_lists() -> None:
    values = compare([[picture(30, 50, seed=i) for i in range(2)], [picture(50, 30, seed=3)]])
    assert len(values) == 3


def test_mixed_sizes_without_stacking() -> None:
    images = [picture(30, 50), picture(33, 20), noise((9, 70, 3))]
    ours = MobileViTImageProcessor(**SMALL)(images, return_tensors=None, do_center_crop=False)
    theirs = peer(**SMALL)(images, do_center_crop=False)
    assert isinstance(ours["pixel_values"], list)
    for one, other in zip(ours["pixel_values"], theirs["pixel_values"], strict=True):
        assert_identical(one, other)


def test_settings_of_the_processor_and_of_the_call() -> None:
    options = {
        "size": {"height": 24, "width": 18},
        "resample": 0,
        "rescale_factor": 2.5,
        "do_flip_channel_order": False,
        "crop_size": 11,
    }
    images = [picture(30, 50), picture(20, 20)]
    at_call = compare(images, **options)
    at_start = compare(images, processor=options)
    assert_identical(at_call, at_start)


edges = st.integers(1, 40)
sizes = st.one_of(
    edges,
    st.tuples(edges, edges),
    st.fixed_dictionaries({"height": edges, "width": edges}),
    st.fixed_dictionaries({"shortest_edge": edges}, optional={"longest_edge": edges}),
    st.fixed_dictionaries({"max_height": edges, "max_width": edges}),
)
option_sets = st.fixed_dictionaries(
    {},
    optional={
        "do_convert_rgb": st.booleans(),
        "do_resize": st.booleans(),
        "size": sizes,
        "default_to_square": st.booleans(),
        "resample": st.integers(0, 5),
        "do_rescale": st.booleans(),
        "rescale_factor": st.floats(-4, 4),
        "do_center_crop": st.booleans(),
        "crop_size": st.one_of(edges, st.tuples(edges, edges)),
        "do_flip_channel_order": st.booleans(),
    },
)


@st.composite
def any_image(draw: st.DrawFn) -> Any:
    height, width, seed = draw(edges), draw(edges), draw(st.integers(0, 9))
    if draw(st.booleans()):
        return picture(height, width, draw(st.sampled_from(PIL_MODES)), seed)
    channels = draw(st.sampled_from([1, 3, 4]))
    shape = draw(st.sampled_from([(channels, height, width), (height, width, channels)]))
    array = noise(shape, draw(st.sampled_from(["uint8", "bool", "int32", "float16", "float32", "float64"])), seed)
    return torch.from_numpy(array) if draw(st.booleans()) else array


@settings(max_examples=250, deadline=None)
@given(image=any_image(), options=option_sets)
def test_any_image_and_options(image: Any, options: dict[str, Any]) -> None:
    compare_or_both_refuse(image, {"size": 20, "crop_size": 16}, **options)


@needs_ucmerced
def test_photos() -> None:
    assert UCMERCED is not None
    photos = sorted((UCMERCED / "images").iterdir())[::14]
    ours = MobileViTImageProcessor()(photos, return_tensors="np")["pixel_values"]
    assert_identical(ours, peer()([str(photo) for photo in photos], return_tensors="np")["pixel_values"])
