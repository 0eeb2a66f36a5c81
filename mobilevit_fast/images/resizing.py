"""Resizing and cropping in one step, by the C++ kernel where it knows the installed Pillow's arithmetic."""

from __future__ import annotations

import platform
import re
from functools import cache

import numpy as np
import PIL
import torch
from PIL import Image
from PIL.Image import Resampling

from mobilevit_fast.ops import Support, resize_crop
from mobilevit_fast.ops.resize_crop import CHANNELS, FILTERS, supports_device

_FIRST_VERIFIED, _LAST_VERIFIED = (10, 0), (13, 0)
_ROWS_FIRST_SINCE = (13, 0)
_MACHINES = ("x86_64", "AMD64")
_FILTERS_WITH_SINES = (Resampling.LANCZOS, Resampling.HAMMING)
_LONGEST_EDGE = 2**24
"""Limit of an image, in pixels: Pillow counts them in float32."""


@cache
def supports_pillow(version: str = PIL.__version__, machine: str = platform.machine()) -> Support:
    """Whether the kernel is loaded and computes what this Pillow does."""
    library = supports_device("cpu")
    if not library.ok:
        return library
    if machine not in _MACHINES:
        return Support(False, f"expected a machine of {' or '.join(_MACHINES)}, whose rounding is known, got {machine}")
    found = re.fullmatch(r"(\d+)\.(\d+)\.\d+", version)
    if found is None or not _FIRST_VERIFIED <= (int(found[1]), int(found[2])) <= _LAST_VERIFIED:
        first, last = (".".join(map(str, v)) for v in (_FIRST_VERIFIED, _LAST_VERIFIED))
        return Support(False, f"expected a Pillow from {first} to {last}, whose arithmetic is known, got {version}")
    return Support(True)


def supports(shape: tuple[int, ...], resample: Resampling, device: str = "cpu") -> Support:
    """Whether the kernel resizes images of this shape (height, width, channels), as the installed Pillow does.

    Args:
        shape: of the image.
        resample: Pillow's filter.
        device: type of the device that holds the image.
    """
    if int(resample) not in FILTERS:
        names = ", ".join(Resampling(number).name.lower() for number in FILTERS)
        return Support(False, f"expected a filter among {names}, got {resample.name.lower()}")
    if shape[2] not in CHANNELS:
        return Support(False, f"expected {' or '.join(map(str, CHANNELS))} channels, got {shape[2]}")
    if max(shape[:2]) >= _LONGEST_EDGE:
        return Support(False, f"expected edges of fewer than {_LONGEST_EDGE} pixels, got {max(shape[:2])}")
    if device != "cpu" and resample in _FILTERS_WITH_SINES:
        return Support(
            False, f"expected a filter without sines on a GPU, whose sines differ, got {resample.name.lower()}"
        )
    on_device = supports_device(device)
    return supports_pillow() if on_device.ok else on_device


def rows_come_first(size: tuple[int, int], resized: tuple[int, int], version: str = PIL.__version__) -> bool:
    """Whether Pillow changes the height (of pairs (height, width)) before the width.

    Since Pillow 13 it does where the height shrinks by more than twice the pixels that the width shrinks by.
    """
    major, minor = map(int, version.split(".")[:2])
    lost_rows, lost_columns = size[0] - resized[0], size[1] - resized[1]
    return (major, minor) >= _ROWS_FIRST_SINCE and lost_rows > max(0, 2 * lost_columns)


def resize_and_crop(
    pixels: np.ndarray | torch.Tensor,
    size: tuple[int, int],
    crop: tuple[int, int],
    resample: Resampling,
    *,
    flip_channels: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Resize as Pillow does and cut out the centre, by the kernel or, where it does not take the case, by Pillow.

    Args:
        pixels: (height, width, channels) uint8, 1 to 4 channels. Rows may lie apart. Those on a GPU stay there where
            the kernel of the CUDA library takes the case.
        size: (height, width) after the resize.
        crop: (height, width) of the result; what the resized image does not cover is zero.
        resample: Pillow's filter.
        flip_channels: reverse the channels.
        out: (channels, *crop) uint8 of any strides for the result; None for a new one. On the device of the pixels.

    Returns:
        ``out``; a new one is dense.
    """
    device = pixels.device if isinstance(pixels, torch.Tensor) else torch.device("cpu")
    if supports(tuple(pixels.shape), resample, device.type).ok:
        height, width = pixels.shape[:2]
        rows_first = rows_come_first((height, width), size)
        image = as_rows(pixels)
        return resize_crop(
            image, size, crop, int(resample), rows_first=rows_first, flip_channels=flip_channels, out=out
        )
    array = pixels.cpu().numpy() if isinstance(pixels, torch.Tensor) else pixels
    resized = torch.from_numpy(resize_by_pillow(array, size, resample)).permute(2, 0, 1).to(device)
    if flip_channels:
        resized = resized.flip(0)
    if out is None:
        out = resized.new_empty((resized.shape[0], *crop))
    out.zero_()
    to, of = zip(*(centred_slices(edge, kept) for edge, kept in zip(size, crop, strict=True)), strict=True)
    out[:, to[0], to[1]] = resized[:, of[0], of[1]]
    return out


def resize_by_pillow(pixels: np.ndarray, size: tuple[int, int], resample: Resampling) -> np.ndarray:
    """(height, width, channels) uint8 of 1 to 4 channels, resized by Pillow itself."""
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    resized = np.array(picture.resize(size[::-1], resample=resample))
    return resized[:, :, None] if resized.ndim == 2 else resized


def centred_slices(edge: int, crop: int) -> tuple[slice, slice]:
    """Where the part that both share lies in the crop and in the image, along one edge.

    Where the margin is odd, the crop lies half a pixel above and left of the centre, the padded image half a pixel
    below and right of it.
    """
    offset = (edge - crop) // 2  # negative: the image starts this far inside the crop
    length = min(edge, crop)
    in_crop, in_image = max(-offset, 0), max(offset, 0)
    return slice(in_crop, in_crop + length), slice(in_image, in_image + length)


def as_rows(pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The same pixels, (height, width, channels), as a tensor whose rows are without gaps, as it is where it can be."""
    if isinstance(pixels, torch.Tensor):
        close = pixels.stride(2) == 1 and pixels.stride(1) == pixels.shape[2]
        return pixels if close else pixels.contiguous()
    close = pixels.strides[1:] == (pixels.shape[2], 1) and pixels.strides[0] >= 0
    # PyTorch warns of arrays that are not to be written.
    return torch.from_numpy(pixels if close and pixels.flags.writeable else np.array(pixels, order="C"))
