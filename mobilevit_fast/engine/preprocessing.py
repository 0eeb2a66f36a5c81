"""From decoded pixels to what the model reads: resized and cropped uint8 images, and a table that does the rest.

Whatever the image processor does to a pixel after the resize (rescaling, normalisation) depends on its 8 bits and its
channel alone. So batches hold uint8 images, and a table of 256 values a channel, made by the processor's own functions,
gives the numbers that it would give, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilevit_fast.acceleration.pixels import ignores_do_normalize
from mobilevit_fast.engine.decoding import decode, whole_size
from mobilevit_fast.images import ImageSettings, MobileViTImageProcessor
from mobilevit_fast.images.inputs import RawImage
from mobilevit_fast.images.pipeline import process_image, resized_where_they_are, write_resized
from mobilevit_fast.images.settings import CHANNELS_FIRST
from mobilevit_fast.images.transforms import normalize, rescale, resized_shape
from mobilevit_fast.ops import pixels_to_float

EXACT = "exact"
FAST = "fast"
MODES = (EXACT, FAST)

_REDUCTIONS = (8, 4, 2)


class Preprocessing:
    """The steps of an image processor, on one image at a time, for several threads.

    Args:
        processor: of this package, or one of transformers' for MobileViT, which never normalises.
        mode: "exact", the processor's result to the bit; or "fast": JPEG is decoded at 1/2, 1/4 or 1/8 where that
            leaves as many pixels as the resize asks for.

    Attributes:
        shape: (height, width) of the images it makes, or None where these depend on the image.

    Raises:
        TypeError: an object that is no image processor.
        ValueError: another mode.
    """

    def __init__(self, processor: Any, mode: str = EXACT) -> None:
        if mode not in MODES:
            raise ValueError(f"preprocessing: expected {' or '.join(map(repr, MODES))}, got {mode!r}")
        self.settings = settings_of(processor)
        self.mode = mode
        self.shape = _fixed_shape(self.settings)
        self._of_arrays = replace(self.settings, input_data_format=CHANNELS_FIRST)
        self.table = self._table()
        """(3, 256), float32: the numbers of the channels as files have them, RGB."""
        self.keeps = lru_cache(maxsize=256)(self._keeps)
        """Whether resize and crop leave uint8 images of a height and width what they are."""
        self._reduction = self._reduced if mode == FAST and self.settings.do_resize else whole_size

    def decode(self, raw: RawImage) -> np.ndarray:
        """Pixels (channels, height, width) of an image."""
        return decode(raw, self.settings, self._reduction)

    def write(self, pixels: np.ndarray, row: Tensor | None, name: str = "image") -> Tensor | None:
        """Resize and crop an image into its place in a batch.

        Args:
            pixels: (channels, height, width).
            row: its place, (height, width, 3) uint8; None where images of the batch differ in size.
            name: of the image, for warnings.

        Returns:
            None; for an image that cannot be there, one of float values or of another size, what the processor makes
            of it: (channels, height, width).
        """
        if row is None or pixels.dtype != np.uint8 or pixels.shape[0] != 3:
            values = torch.from_numpy(process_image(name, pixels, self._of_arrays).values().copy(order="C"))
            return values if values.is_floating_point() else values.float()  # uint8 images are what a batch holds
        if self.keeps(pixels.shape[1], pixels.shape[2]):
            row.numpy()[...] = pixels.transpose(1, 2, 0)  # (3, height, width) -> (height, width, 3)
            return None
        write_resized(pixels, self.settings, row.permute(2, 0, 1))  # (height, width, 3) -> (3, height, width)
        return None

    def resized(self, images: Sequence[Tensor]) -> Tensor | None:
        """Resize and crop images on the device where they are.

        Args:
            images: (height, width, 3) uint8 on one device.

        Returns:
            (N, 3, height, width) uint8 of the bits that `write` gives; None where that device cannot, or where images
            have no size of their own.
        """
        return None if self.shape is None else resized_where_they_are(images, self.settings)

    def values(self, images: Tensor) -> Tensor:
        """Numbers for the model, (N, 3, height, width) float32 in channels_last, of uint8 images of the same shape."""
        table = self.table.to(images.device)
        return pixels_to_float(images, table, flip_channels=self.settings.do_flip_channel_order)

    def _table(self) -> Tensor:
        settings = self.settings
        values = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
        if settings.do_rescale:
            assert settings.rescale_factor is not None
            values = rescale(values, settings.rescale_factor)
        if settings.do_normalize:
            assert settings.image_mean is not None
            assert settings.image_std is not None
            values = normalize(values, settings.image_mean, settings.image_std)
        return torch.from_numpy(np.array(values, dtype=np.float32, order="C").reshape(3, 256))

    def _keeps(self, height: int, width: int) -> bool:
        resizes, size = self.settings.do_resize, self.settings.size
        resized = resized_shape(height, width, size) if resizes and size is not None else (height, width)
        return self.shape == resized == (height, width)

    def _reduced(self, height: int, width: int) -> int:
        assert self.settings.size is not None
        wanted = resized_shape(height, width, self.settings.size)
        return next((r for r in _REDUCTIONS if height >= r * wanted[0] and width >= r * wanted[1]), 1)


def settings_of(processor: Any) -> ImageSettings:
    """The settings of an image processor of this package, or of transformers.

    Raises:
        TypeError: any other object.
    """
    if isinstance(processor, MobileViTImageProcessor):
        return processor.settings
    if not hasattr(processor, "to_dict") or not hasattr(processor, "do_rescale"):
        raise TypeError(f"expected an image processor, got {type(processor).__name__}")
    normalizes = bool(getattr(processor, "do_normalize", False)) and not ignores_do_normalize(processor)
    return MobileViTImageProcessor.from_dict(processor.to_dict(), do_normalize=normalizes).settings


def _fixed_shape(settings: ImageSettings) -> tuple[int, int] | None:
    """(height, width) of every image, where they are the same."""
    if settings.do_center_crop:
        size = settings.crop_size
    elif settings.do_resize:
        size = settings.size
    else:
        return None
    return (size["height"], size["width"]) if size is not None and "height" in size else None
