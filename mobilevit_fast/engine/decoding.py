"""Decoding: from a file's bytes, an array or a picture to the pixels that the image processor reads.

JPEG is decoded by libjpeg-turbo without Pillow around it where simplejpeg is installed, with the same result to the
bit; what Pillow treats in a way of its own (orientation, CMYK, damaged files, decompression bombs) is left to it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mobilevit_fast.images.inputs import RawImage, read_image
from mobilevit_fast.images.settings import ImageSettings
from mobilevit_fast.images.transforms import ImageError

Reduction = Callable[[int, int], int]
"""By how much an image of (height, width) may be made smaller while it is decoded: 1, 2, 4 or 8."""

_START_OF_IMAGE = b"\xff\xd8\xff"
_START_OF_SCAN = 0xDA
_APP1 = 0xE1
"""Segment of Exif and XMP, either of which may say that the image lies on its side."""
_SHORT = 1 << 20
"""Bytes that are faster searched as a whole than segment by segment."""
_SIMPLE = ("YCbCr", "Gray", "RGB")
_ORIENTATION = 0x0112
_UPRIGHT = 1

_buffers = threading.local()


def whole_size(height: int, width: int) -> int:
    """The reduction that leaves every image as it is."""
    return 1


def decode(raw: RawImage, settings: ImageSettings, reduction: Reduction = whole_size) -> np.ndarray:
    """Pixels of one image, as `mobilevit_fast.images.inputs.read_image` has them.

    Args:
        raw: the content of an image file, or what else the image processor takes.
        settings: of the image processor; `do_convert_rgb` and `input_data_format` count here.
        reduction: how far JPEG may be reduced in the domain of its cosines, where it is decoded.

    Returns:
        (channels, height, width). Of JPEG it lies in memory that this thread's next call writes to.

    Raises:
        ImageError: an image that cannot be read.
    """
    if isinstance(raw, (bytes, bytearray, memoryview)):
        pixels = _decode_jpeg(raw, reduction)
        if pixels is not None:
            return pixels.transpose(2, 0, 1)  # (height, width, 3) -> (3, height, width)
        reduced = None if reduction is whole_size else _draft(raw, reduction)
        raw = raw if reduced is None else reduced
    return read_image(raw, convert_rgb=settings.do_convert_rgb, data_format=settings.input_data_format)


@functools.cache
def has_simplejpeg() -> bool:
    """Whether JPEG is decoded without Pillow."""
    return find_spec("simplejpeg") is not None


def _decode_jpeg(data: bytes | bytearray | memoryview, reduction: Reduction) -> np.ndarray | None:
    """(height, width, 3) uint8 RGB, or None where Pillow has to do it."""
    if data[:3] != _START_OF_IMAGE or not has_simplejpeg():
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in _SIMPLE or height * width > (Image.MAX_IMAGE_PIXELS or height * width):
            return None
        if _has_app1(data) and not _is_upright(data):
            return None
        factor = reduction(height, width)
        return simplejpeg.decode_jpeg(
            data,
            min_height=-(-height // factor) if factor > 1 else 0,
            min_width=-(-width // factor) if factor > 1 else 0,
            buffer=_buffer(3 * height * width),
        )
    except ValueError:  # damaged, which Pillow can tell more about
        return None


def _has_app1(data: bytes | bytearray | memoryview) -> bool:
    """Whether a JPEG has a segment that may hold an orientation, or is none that can be told of."""
    if isinstance(data, bytes) and len(data) < _SHORT and data.find(b"\xff\xe1", 2) < 0:
        return False  # these bytes are not anywhere; where they are, it may be in a segment of another kind
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return True
        marker = data[position + 1]
        if marker == _START_OF_SCAN:
            return False
        if marker == _APP1:
            return True
        if marker == 0xFF:  # a byte to fill up
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


def _is_upright(data: bytes | bytearray | memoryview) -> bool:
    """Whether Pillow would leave a JPEG as it lies."""
    try:
        with Image.open(BytesIO(data)) as picture:
            return picture.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT
    except Exception:  # whatever Pillow says of it, it says where it decodes
        return False


def _draft(data: bytes | bytearray | memoryview, reduction: Reduction) -> Image.Image | None:
    """A JPEG that Pillow will decode reduced; None for anything else, which is decoded as it is."""
    if data[:3] != _START_OF_IMAGE:
        return None
    try:
        with Image.open(BytesIO(data)) as picture:
            factor = reduction(picture.height, picture.width)
            picture.draft("RGB", (picture.width // factor, picture.height // factor))
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"expected a readable image, got {len(data)} bytes that cannot be decoded: {error}") from None


def _buffer(size: int) -> Any:
    """Memory of this thread, which would otherwise be asked of the system for every image."""
    buffer = getattr(_buffers, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = _buffers.buffer = np.empty(size, np.uint8)
    return buffer
