"""One image or segmentation map through all steps, and the results into one array.

Where the resize is done by the C++ kernel, an image stays uint8 until images become one array: it is resized and
cropped in one step, and what the other steps make of each of the 256 bytes is looked up.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Resampling

from mobilevit_fast import limits
from mobilevit_fast.images.inputs import RawImage, is_ambiguous, read_image, read_segmentation_map
from mobilevit_fast.images.resizing import as_rows, resize_and_crop, rows_come_first, supports, supports_pillow
from mobilevit_fast.images.settings import ImageSettings
from mobilevit_fast.images.transforms import (
    ImageError,
    center_crop,
    flip_channel_order,
    holds_fractions,
    normalize,
    reduce_labels,
    rescale,
    resize,
    resized_shape,
    to_bytes,
)
from mobilevit_fast.ops import pixels_to_float, resize_crop_batch


class Pixels(NamedTuple):
    """A processed image: an array (channels, height, width), or bytes of which ``table`` (channels, 256) has the
    values."""

    array: np.ndarray
    table: torch.Tensor | None = None

    def values(self) -> np.ndarray:
        """(channels, height, width)."""
        return self.array if self.table is None else _looked_up([self.array], self.table)[0]


def process_image(label: str, raw: RawImage, settings: ImageSettings) -> Pixels:
    """One image: convert to RGB, resize, rescale, crop, normalise, flip.

    Raises:
        ImageError: the message begins with `label`.
    """
    try:
        image = read_image(raw, convert_rgb=settings.do_convert_rgb, data_format=settings.input_data_format)
        if settings.input_data_format is None and is_ambiguous(raw):
            warnings.warn(
                f"{label}: its shape {image.shape} could have channels first or last, and first is taken; pass "
                'input_data_format="channels_first" or "channels_last"',
                stacklevel=3,  # the line that calls the processor
            )
        largest = image.max() if settings.do_rescale and np.issubdtype(image.dtype, np.floating) else 0
        if 0 < largest <= 1:
            warnings.warn(
                f"{label}: its values lie within [0, 1] and are rescaled once more; pass do_rescale=False to keep them",
                stacklevel=3,
            )
        if settings.do_resize:
            _check_growth(image.shape[1:], *_resized_shape(image, settings))
        if _stays_bytes(image, settings):
            return _process_bytes(image, settings)
        return Pixels(_process_values(image, largest, settings))
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None


def _process_values(image: np.ndarray, largest: float, settings: ImageSettings) -> np.ndarray:
    """Step by step. ``largest`` is the largest number of an image of fractions that is to be rescaled, else 0."""
    image = _resize(image, settings, settings.resample)
    if largest > 255 and not settings.do_resize:  # a resize has refused it
        raise ImageError(f"expected numbers of at most 255 to rescale, got {image.dtype} up to {largest}")
    if settings.do_rescale:
        assert settings.rescale_factor is not None  # ImageSettings sees to this, here and below
        image = rescale(image, settings.rescale_factor)
    image = _crop(image, settings)
    if settings.do_normalize:
        assert settings.image_mean is not None
        assert settings.image_std is not None
        image = normalize(image, settings.image_mean, settings.image_std)
    return flip_channel_order(image) if settings.do_flip_channel_order else image


def _stays_bytes(image: np.ndarray, settings: ImageSettings) -> bool:
    """Whether all steps are a resize by the kernel, a crop, and a function of each byte that leaves zeros of the
    padding what they are."""
    if settings.do_rescale and settings.do_center_crop:
        assert settings.rescale_factor is not None
        if settings.rescale_factor < 0:  # pixels of zero become -0, the padding is 0
            return False
    if not settings.do_resize:
        return image.dtype == np.uint8 and supports_pillow().ok
    assert settings.resample is not None
    channels, height, width = image.shape
    return supports((height, width, channels), settings.resample).ok and not holds_fractions(image)


class _Geometry(NamedTuple):
    """Sizes of a resize and a crop: (height, width) of the whole image after it, of the result, and Pillow's filter."""

    size: tuple[int, int]
    crop: tuple[int, int]
    resample: Resampling


def _geometry(shape: tuple[int, int], settings: ImageSettings) -> _Geometry:
    """Sizes and filter by which settings with a resize, a crop, or both treat an image of (height, width).

    Raises:
        ImageError: the result would have too many pixels.
    """
    size = shape
    if settings.do_resize:
        assert settings.size is not None
        size = resized_shape(*shape, settings.size)
        _check_growth(shape, *size)
    # Without a resize any filter leaves pixels what they are.
    resample = settings.resample if settings.do_resize and settings.resample is not None else Resampling.BOX
    return _Geometry(size, _crop_shape(size, settings), resample)


def write_resized(image: np.ndarray, settings: ImageSettings, out: torch.Tensor) -> None:
    """Resize and crop uint8 pixels into a place of their own.

    Args:
        image: (channels, height, width) uint8.
        settings: with a resize, a crop, or both.
        out: (channels, height, width) uint8 of any strides.

    Raises:
        ImageError: the result would have too many pixels.
    """
    size, crop, resample = _geometry((image.shape[1], image.shape[2]), settings)
    resize_and_crop(image.transpose(1, 2, 0), size, crop, resample, out=out)


def resized_where_they_are(images: Sequence[torch.Tensor], settings: ImageSettings) -> torch.Tensor | None:
    """Resize and crop uint8 images on their device, bit for bit as `write_resized` does.

    Args:
        images: at least one, (height, width, 3) uint8, all on one device.
        settings: with a resize, a crop, or both, and results of one size.

    Returns:
        (N, 3, height, width) uint8, channels_last; None where no kernel of the device takes all images.

    Raises:
        ImageError: a result would have too many pixels.
    """
    geometries = [_geometry((image.shape[0], image.shape[1]), settings) for image in images]
    _, crop, resample = geometries[0]
    if not all(supports(tuple(image.shape), resample, image.device.type).ok for image in images):
        return None
    sizes = [geometry.size for geometry in geometries]
    orders = [
        rows_come_first((image.shape[0], image.shape[1]), size) for image, size in zip(images, sizes, strict=True)
    ]
    dense = [as_rows(image) for image in images]
    return resize_crop_batch(dense, sizes, crop, int(resample), rows_first=orders)


def _process_bytes(image: np.ndarray, settings: ImageSettings) -> Pixels:
    """The result of `_process_values`, bit for bit."""
    flip = settings.do_flip_channel_order
    if settings.do_resize:
        assert settings.resample is not None
        size = _resized_shape(image, settings)
        crop = _crop_shape(size, settings)
        pixels = to_bytes(image).transpose(1, 2, 0)
        image = resize_and_crop(pixels, size, crop, settings.resample, flip_channels=flip).numpy()
    else:
        image = _crop(image, settings)
        image = flip_channel_order(image).copy() if flip else image  # PyTorch knows no strides below 0
    if not settings.do_rescale and not settings.do_normalize:
        return Pixels(image)
    factor = settings.rescale_factor if settings.do_rescale else None
    mean, std = (settings.image_mean, settings.image_std) if settings.do_normalize else (None, None)
    return Pixels(image, _table(image.shape[0], factor, mean, std, flip))


@lru_cache(maxsize=64)
def _table(
    channels: int,
    factor: float | None,
    mean: float | tuple[float, ...] | None,
    std: float | tuple[float, ...] | None,
    flip: bool,
) -> torch.Tensor:
    """(channels, 256): what the steps behind the resize make of each byte."""
    levels = np.tile(np.arange(256, dtype=np.uint8), (channels, 1, 1))
    if factor is not None:
        levels = rescale(levels, factor)
    if mean is not None and std is not None:
        levels = normalize(levels, mean, std)
    return torch.from_numpy((flip_channel_order(levels) if flip else levels)[:, 0].copy())


def process_segmentation_map(label: str, raw: RawImage, settings: ImageSettings) -> Pixels:
    """(height, width) int64 of one map of class ids: reduce the labels, resize to the nearest pixel, crop.

    Raises:
        ImageError: the message begins with `label`.
    """
    try:
        resized = " to resize a map, which is done in bytes" if settings.do_resize else ""
        reduced = " to reduce" if settings.do_reduce_labels and not resized else ""
        labels = read_segmentation_map(
            raw,
            lowest=0 if resized or reduced else None,
            highest=255 if resized else None,
            why=resized or reduced,
        )
        if settings.do_reduce_labels:
            labels = reduce_labels(labels)
        if settings.do_resize:
            _check_growth(labels.shape[1:], *_resized_shape(labels, settings))
        labels = _crop(_resize(labels, settings, Resampling.NEAREST), settings)
        return Pixels(labels[0].astype(np.int64))
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None


def _resize(image: np.ndarray, settings: ImageSettings, resample: Resampling | None) -> np.ndarray:
    if not settings.do_resize:
        return image
    assert resample is not None
    return resize(image, *_resized_shape(image, settings), resample)


def _resized_shape(image: np.ndarray, settings: ImageSettings) -> tuple[int, int]:
    assert settings.size is not None
    return resized_shape(image.shape[1], image.shape[2], settings.size)


def _crop(image: np.ndarray, settings: ImageSettings) -> np.ndarray:
    if not settings.do_center_crop:
        return image
    return center_crop(image, *_crop_shape(image.shape[1:], settings))


def _crop_shape(size: tuple[int, ...], settings: ImageSettings) -> tuple[int, int]:
    """Height and width after the crop of an image of so many rows and columns."""
    if not settings.do_center_crop:
        return size[0], size[1]
    assert settings.crop_size is not None
    height, width = settings.crop_size["height"], settings.crop_size["width"]
    _check_growth(size, height, width)
    return height, width


def _check_growth(size: tuple[int, ...], height: int, width: int) -> None:
    """Refuse what would be larger than both the image of this size and the limit."""
    if height * width > max(size[0] * size[1], limits.MAX_PIXELS):
        raise ImageError(
            f"expected an image of {limits.raised('MAX_PIXELS')} pixels after resizing and cropping, "
            f"got {height}x{width} from {size[0]}x{size[1]}"
        )


def stack(images: Sequence[Pixels], return_tensors: str | None, kind: str) -> Any:
    """The images along a new first axis: a tensor for "pt", an array for "np"; for None a list, one array
    each.

    The result never shares memory with `images`.

    Raises:
        ImageError: images of different shapes, unless `return_tensors` is None.
    """
    if return_tensors is None:
        return [image.values().copy(order="C") for image in images]
    first = images[0]
    for i, image in enumerate(images):
        if image.array.shape != first.array.shape:
            raise ImageError(
                f"expected results of one shape to stack, got {first.array.shape} for {kind} 0 and "
                f"{image.array.shape} for {kind} {i}; resize to a fixed size, crop, convert to RGB, or pass "
                "return_tensors=None"
            )
    if first.table is not None and all(image.table is first.table for image in images):
        stacked = _looked_up([image.array for image in images], first.table)
    else:
        stacked = np.stack([image.values() for image in images])
    return torch.from_numpy(stacked) if return_tensors == "pt" else stacked


def _looked_up(arrays: Sequence[np.ndarray], table: torch.Tensor) -> np.ndarray:
    """(images, channels, height, width) of such bytes."""
    pixels = np.stack(arrays)  # a copy, since PyTorch takes neither strides below 0 nor what is not to be written
    result = np.empty(pixels.shape, np.float32)
    pixels_to_float(torch.from_numpy(pixels), table, out=torch.from_numpy(result))
    return result
