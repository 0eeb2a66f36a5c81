"""Decoding: the same pixels as the image processor reads, whatever decodes them."""

import io
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from mobilevit_fast.engine import decoding
from mobilevit_fast.engine.decoding import decode
from mobilevit_fast.images import ImageError, ImageSettings
from mobilevit_fast.images.inputs import read_image
from tests.engine.pictures import encoded, every_kind, picture, turned

SETTINGS = ImageSettings()


def pixels_of_pillow(content: bytes, settings: ImageSettings = SETTINGS) -> np.ndarray:
    return read_image(content, convert_rgb=settings.do_convert_rgb, data_format=settings.input_data_format)


@pytest.fixture
def pillow_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("Pillow was asked")

    monkeypatch.setattr(decoding, "read_image", asked)


@pytest.mark.parametrize("convert_rgb", [False, True])
@pytest.mark.parametrize("name", list(every_kind()))
def test_every_kind_of_file_has_the_processors_pixels(name: str, convert_rgb: bool) -> None:
    settings = ImageSettings(do_convert_rgb=convert_rgb)
    content = every_kind()[name]
    found, expected = decode(content, settings), pixels_of_pillow(content, settings)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}])
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
def test_jpeg_is_decoded_as_by_pillow(subsampling: int, options: dict, quality: int, pillow_is_not_asked: None) -> None:
    for height, width in ((1, 1), (7, 9), (16, 17), (50, 33), (100, 160)):
        content = encoded(picture(height, width, quality), subsampling=subsampling, quality=quality, **options)
        np.testing.assert_array_equal(decode(content, SETTINGS), pixels_of_pillow(content))


def test_upright_and_grey_jpeg_is_not_pillows(pillow_is_not_asked: None) -> None:
    for name in ("grey.jpg", "upright.jpg", "progressive.jpg"):
        content = every_kind()[name]
        np.testing.assert_array_equal(decode(content, SETTINGS), pixels_of_pillow(content))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_the_processors(orientation: int) -> None:
    content = turned(40, 60, orientation)
    np.testing.assert_array_equal(decode(content, SETTINGS), pixels_of_pillow(content))


def test_orientation_of_xmp_is_the_processors() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = encoded(picture(40, 60), xmp=xmp)
    expected = pixels_of_pillow(content)
    assert expected.shape == (3, 60, 40)
    np.testing.assert_array_equal(decode(content, SETTINGS), expected)


@pytest.mark.parametrize("length", [2, 3, 10, 100, 400, 900])
def test_a_truncated_jpeg_has_pillows_error(length: int) -> None:
    content = encoded(picture(60, 60))
    assert length < len(content)
    with pytest.raises(ImageError) as expected:
        pixels_of_pillow(content[:length])
    with pytest.raises(ImageError) as found:
        decode(content[:length], SETTINGS)
    assert str(found.value) == str(expected.value)


def test_garbage_in_the_middle_is_as_by_pillow() -> None:
    content = bytearray(encoded(picture(60, 60), quality=95))
    generator = np.random.default_rng(0)
    for _ in range(50):
        broken = bytearray(content)
        for position in generator.integers(2, len(content), 5):
            broken[position] = generator.integers(256)
        results = []
        for read in (lambda data: decode(data, SETTINGS), pixels_of_pillow):
            try:
                results.append(read(bytes(broken)))
            except ImageError as error:
                results.append(str(error))
        if isinstance(results[1], str):
            assert results[0] == results[1]
        else:
            np.testing.assert_array_equal(results[0], results[1])


def test_a_decompression_bomb_is_pillows_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(picture(60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="decompression bomb"):
        decode(content, SETTINGS)


def test_without_simplejpeg_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    monkeypatch.setattr(decoding, "has_simplejpeg", lambda: False)
    content = encoded(picture(60, 70))
    np.testing.assert_array_equal(decode(content, SETTINGS), pixels_of_pillow(content))


@pytest.mark.parametrize("simplejpeg", [False, True])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_jpeg_is_reduced_by_the_factor(factor: int, simplejpeg: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "has_simplejpeg", lambda: simplejpeg)
    for height, width in ((64, 80), (65, 83), (100, 55)):
        found = decode(encoded(picture(height, width)), SETTINGS, lambda *_: factor)
        assert found.shape == (3, -(-height // factor), -(-width // factor))


def test_a_reduced_jpeg_is_turned_as_well() -> None:
    assert decode(turned(64, 96, 6), SETTINGS, lambda *_: 2).shape == (3, 48, 32)


def test_other_files_are_never_reduced() -> None:
    content = encoded(picture(64, 64), "PNG")
    np.testing.assert_array_equal(decode(content, SETTINGS, lambda *_: 4), pixels_of_pillow(content))


def test_threads_decode_into_memory_of_their_own() -> None:
    contents = [encoded(picture(50 + i, 60, i)) for i in range(8)]
    expected = [pixels_of_pillow(content) for content in contents]
    wrong: list[int] = []

    def many(i: int) -> None:
        for _ in range(50):
            if not np.array_equal(decode(contents[i], SETTINGS), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=many, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_no_file_is_read_as_the_processor_does() -> None:
    image = picture(30, 40)
    for raw in (image, np.asarray(image), io.BytesIO(encoded(image)).getvalue(), memoryview(encoded(image, "PNG"))):
        np.testing.assert_array_equal(decode(raw, SETTINGS), pixels_of_pillow(raw))
