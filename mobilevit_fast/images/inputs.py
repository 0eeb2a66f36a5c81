"""From whatever holds an image (file, bytes, PIL image, array, tensor, batch) to channels-first arrays."""

import os
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from mobilevit_fast.images.settings import CHANNELS_FIRST, CHANNELS_LAST
from mobilevit_fast.images.transforms import ImageError, convert_array_to_rgb

RawImage: TypeAlias = Image.Image | np.ndarray | torch.Tensor | str | os.PathLike[str] | bytes
"""One image as the caller gave it."""

CHANNEL_COUNTS = (1, 3, 4)
"""Channels an array may have: grey, RGB, RGBA."""

_WIDE_GREY = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of more than 8 bits, whose values its conversions cut off at 255."""

_BYTES = (bytes, bytearray, memoryview)
_PATHS = (str, os.PathLike)
_ARRAYS = (np.ndarray, torch.Tensor)
# What Pillow's decoders raise on damaged files; RuntimeError comes from AVIF.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def list_images(images: Any, *, ndim: int, kind: str) -> list[tuple[str, RawImage]]:
    """Every single image of a possibly nested or batched input, with a label for messages about it.

    Args:
        images: one image, an array or tensor with a leading batch axis, or a list or tuple of any of these.
        ndim: axes of one array: 3 for images (2 is taken as grey), 2 for segmentation maps. One more is a
            batch.
        kind: how messages call an item, "image" or "segmentation map".

    Returns:
        (label, image) in order; a label is like `image 3 (photos/a.jpg)`.

    Raises:
        ImageError: nothing in it, or an array of other rank.
        TypeError: an item that is no image.
    """
    found: list[tuple[str, RawImage]] = []
    for item in _singles(images, ndim):
        label = f"{kind} {len(found)}"
        if isinstance(item, _PATHS):
            label += f" ({_shorten(os.fspath(item))})"
        elif isinstance(item, _ARRAYS):
            if item.ndim != ndim and not (ndim == 3 and item.ndim == 2):
                raise ImageError(
                    f"{label}: expected an array of {ndim} axes, or {ndim + 1} for a batch, "
                    f"got shape {tuple(item.shape)}"
                )
        elif not isinstance(item, (Image.Image, *_BYTES)):
            raise TypeError(
                f"{label}: expected a PIL image, a numpy array, a torch tensor, a path, encoded bytes, "
                f"or a list of these, got {type(item).__name__}"
            )
        found.append((label, item))
    if not found:
        raise ImageError(f"expected at least one {kind}, got an empty {type(images).__name__}")
    return found


def _singles(images: Any, ndim: int) -> Iterator[Any]:
    is_batch = isinstance(images, _ARRAYS) and images.ndim == ndim + 1
    if is_batch or isinstance(images, (list, tuple)):
        for item in images:
            yield from _singles(item, ndim)
    else:
        yield images


def read_image(raw: RawImage, *, convert_rgb: bool, data_format: str | None) -> np.ndarray:
    """One image as an array (channels, height, width), its values and dtype untouched but for 16 bits.

    Files and bytes are decoded, turned upright by their EXIF orientation and converted to RGB, without
    `convert_rgb` as if nothing in them were transparent. PIL images are not turned and, without `convert_rgb`,
    keep the channels of their mode: a palette image then yields its palette indices. Wherever an image comes
    from, whole numbers beyond 255 are 16 bits of which the upper 8 are taken, as Pillow does with RGB of 16 bits.

    Args:
        raw: the image. Arrays and tensors: (height, width), or 1, 3 or 4 channels first or last, boolean,
            integer or floating point. bfloat16 becomes float32, which holds the same values.
        convert_rgb: see `ImageSettings.do_convert_rgb`.
        data_format: see `ImageSettings.input_data_format`; where both axes could be the channels, the first
            is (`is_ambiguous`).

    Raises:
        ImageError: a file that is missing or broken, an empty image, a shape, dtype or values that no image has.
    """
    is_file = isinstance(raw, (*_PATHS, *_BYTES))
    picture = _open_upright(raw) if is_file else raw
    if isinstance(picture, Image.Image):
        _check_not_empty(picture.size[::-1])
        if picture.mode in _WIDE_GREY:
            return _read_wide_grey(picture, convert_rgb or is_file)
        read = _pixels_as_rgb if convert_rgb else _pixels_as_they_are
        pixels = _call_pillow(lambda one: read(one, is_file), picture)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    image = _channels_first(_to_numpy(raw), data_format)
    _check_not_empty(image.shape[1:])
    image = _of_8_bits(image)
    return convert_array_to_rgb(image) if convert_rgb else image


def is_ambiguous(raw: RawImage) -> bool:
    """Whether the first and the last axis of an array could both be its channels."""
    return isinstance(raw, _ARRAYS) and raw.ndim == 3 and {raw.shape[0], raw.shape[2]} <= set(CHANNEL_COUNTS)


def _read_wide_grey(picture: Image.Image, to_rgb: bool) -> np.ndarray:
    """(1 | 3, height, width) of an image of more than 8 bits; fractions of white stay what they are."""
    pixels = _of_8_bits(_to_numpy(_call_pillow(np.array, picture)))
    if not to_rgb:
        return pixels[None]
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 1 and (pixels % 1).any()):
        if not 0 <= low <= high <= 255:
            raise ImageError(
                f"expected fractions within [0, 1] or numbers within [0, 255], got mode {picture.mode} within "
                f"[{low}, {high}]"
            )
        pixels = pixels.astype(np.uint8)  # Pillow cuts fractions off as well
    return np.repeat(pixels[None], 3, axis=0)


def _of_8_bits(pixels: np.ndarray) -> np.ndarray:
    """The upper 8 of 16 bits, if whole numbers go beyond 255; anything else as it is."""
    if pixels.dtype == np.uint8 or pixels.dtype.kind not in "iu" or not pixels.size or pixels.max() <= 255:
        return pixels
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > 65535:
        raise ImageError(
            f"expected whole numbers within [0, 255], or within [0, 65535] of 16 bits, got {pixels.dtype} "
            f"within [{low}, {high}]"
        )
    return (pixels >> 8).astype(np.uint8)


def read_segmentation_map(raw: RawImage, *, lowest: int | None, highest: int | None, why: str) -> np.ndarray:
    """One map of class ids as an array (1, height, width); palette images yield their palette indices.

    Args:
        raw: the map.
        lowest, highest: class ids allowed, None for any.
        why: the end of the message about others.

    Raises:
        ImageError: a file that is missing or broken, an empty map, more than one channel, ids that are not
            whole or not allowed.
    """
    if isinstance(raw, (*_PATHS, *_BYTES)):
        raw = _open_upright(raw)
    labels = _call_pillow(np.array, raw) if isinstance(raw, Image.Image) else _to_numpy(raw)
    if labels.ndim != 2:
        raise ImageError(f"expected one class id per pixel, (height, width), got shape {labels.shape}")
    _check_not_empty(labels.shape)
    if np.issubdtype(labels.dtype, np.floating) and not np.array_equal(labels, np.trunc(labels)):
        fraction = labels[labels != np.trunc(labels)].flat[0]
        raise ImageError(f"expected whole numbers as class ids, got {fraction} ({labels.dtype})")
    for value, allowed in (
        (labels.min(), lowest is None or labels.min() >= lowest),
        (labels.max(), highest is None or labels.max() <= highest),
    ):
        if not allowed:
            bounds = f"of at least {lowest}" if highest is None else f"within [{lowest}, {highest}]"
            raise ImageError(f"expected class ids {bounds}{why}, got {value:.0f}")
    return labels[None]


def _open_upright(source: Any) -> Image.Image:
    if isinstance(source, _BYTES):
        data = bytes(source)
        what, stream = f"{len(data)} bytes", BytesIO(data)
    else:
        what, stream = "a file", os.path.expanduser(os.fspath(source))
        if not os.path.isfile(stream):
            what_came = "a folder" if os.path.isdir(stream) else "no such file"
            raise ImageError(f"expected the path of an image file, got {what_came}")
    try:
        with Image.open(stream) as picture:
            return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise ImageError(f"expected an image in a format that Pillow reads, got {what} that it does not know") from None
    except _DECODE_ERRORS as error:
        raise ImageError(f"expected a readable image, got {what} that cannot be decoded: {_one_line(error)}") from None


def _call_pillow(function: Any, picture: Image.Image) -> Any:
    """`function(picture)`; Pillow decodes lazily, so a damaged image may only show now."""
    try:
        return function(picture)
    except _DECODE_ERRORS as error:
        raise ImageError(f"expected a readable image, got mode {picture.mode}: {_one_line(error)}") from None


def _pixels_as_they_are(picture: Image.Image, is_file: bool) -> np.ndarray:
    """(height, width) or (height, width, channels); of a file RGB, as transformers reads them."""
    return np.array(picture.convert("RGB") if is_file else picture)


def _pixels_as_rgb(picture: Image.Image, is_file: bool) -> np.ndarray:
    """(height, width, 3) uint8, transparency laid over white, of files too."""
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, layer)
    return np.array(picture.convert("RGB"))


def _to_numpy(raw: Any) -> np.ndarray:
    if isinstance(raw, torch.Tensor):
        raw = raw.detach().cpu()
        raw = (raw.float() if raw.dtype == torch.bfloat16 else raw).numpy()
    if raw.dtype.kind not in "buif":
        raise ImageError(f"expected boolean, integer or floating point values, got {raw.dtype}")
    return raw.astype(raw.dtype.newbyteorder("="), copy=False)  # torch knows only the machine's byte order


def _channels_first(image: np.ndarray, data_format: str | None) -> np.ndarray:
    if image.ndim == 2:
        return image[None]
    if data_format is None:
        if image.shape[0] in CHANNEL_COUNTS:
            data_format = CHANNELS_FIRST
        elif image.shape[2] in CHANNEL_COUNTS:
            data_format = CHANNELS_LAST
        else:
            raise ImageError(f"expected 1, 3 or 4 channels along the first or the last axis, got shape {image.shape}")
    elif image.shape[0 if data_format == CHANNELS_FIRST else 2] not in CHANNEL_COUNTS:
        raise ImageError(f"expected 1, 3 or 4 channels, {data_format}, got shape {image.shape}")
    return image if data_format == CHANNELS_FIRST else image.transpose(2, 0, 1)


def _check_not_empty(height_and_width: tuple[int, ...]) -> None:
    if 0 in height_and_width:
        raise ImageError(f"expected at least one pixel, got height and width {tuple(height_and_width)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _shorten(path: str | bytes, limit: int = 200) -> str:
    text = os.fsdecode(path)
    return text if len(text) <= limit else f"{text[:limit]}..., {len(text)} characters"
