"""One image or segmentation map through all steps, and the results into one array."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Resampling

from mobilevit_fast import limits
from mobilevit_fast.images.inputs import RawImage, is_ambiguous, read_image, read_segmentation_map
from mobilevit_fast.images.settings import ImageSettings
from mobilevit_fast.images.transforms import (
    ImageError,
    center_crop,
    flip_channel_order,
    normalize,
    reduce_labels,
    rescale,
    resize,
    resized_shape,
)


def process_image(label: str, raw: RawImage, settings: ImageSettings) -> np.ndarray:
    """(channels, height, width) of one image: convert to RGB, resize, rescale, crop, normalise, flip.

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
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None


def process_segmentation_map(label: str, raw: RawImage, settings: ImageSettings) -> np.ndarray:
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
        labels = _crop(_resize(labels, settings, Resampling.NEAREST), settings)
        return labels[0].astype(np.int64)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None


def _resize(image: np.ndarray, settings: ImageSettings, resample: Resampling | None) -> np.ndarray:
    if not settings.do_resize:
        return image
    assert settings.size is not None
    assert resample is not None
    height, width = resized_shape(image.shape[1], image.shape[2], settings.size)
    _check_growth(image, height, width)
    return resize(image, height, width, resample)


def _crop(image: np.ndarray, settings: ImageSettings) -> np.ndarray:
    if not settings.do_center_crop:
        return image
    assert settings.crop_size is not None
    height, width = settings.crop_size["height"], settings.crop_size["width"]
    _check_growth(image, height, width)
    return center_crop(image, height, width)


def _check_growth(image: np.ndarray, height: int, width: int) -> None:
    """Refuse what would be larger than both the image (channels, height, width) and the limit."""
    before = image.shape[1] * image.shape[2]
    if height * width > max(before, limits.MAX_PIXELS):
        raise ImageError(
            f"expected an image of {limits.raised('MAX_PIXELS')} pixels after resizing and cropping, "
            f"got {height}x{width} from {image.shape[1]}x{image.shape[2]}"
        )


def stack(arrays: Sequence[np.ndarray], return_tensors: str | None, kind: str) -> Any:
    """The arrays along a new first axis: a tensor for "pt", an array for "np"; for None a list, one array
    each.

    The result never shares memory with `arrays`.

    Raises:
        ImageError: arrays of different shapes, unless `return_tensors` is None.
    """
    if return_tensors is None:
        return [array.copy(order="C") for array in arrays]
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ImageError(
                f"expected results of one shape to stack, got {arrays[0].shape} for {kind} 0 and "
                f"{array.shape} for {kind} {i}; resize to a fixed size, crop, convert to RGB, or pass "
                "return_tensors=None"
            )
    stacked = np.stack(arrays)
    return torch.from_numpy(stacked) if return_tensors == "pt" else stacked
