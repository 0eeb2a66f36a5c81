"""Cases of resizing and cropping uint8 images, what Pillow makes of them, and calls that are to be refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

SIZES = (8, 40, 40, 120, 120, 300, 700)
"""Bounds of the random edges, in pixels."""
MARK = 77
"""What is in results before, and around them after."""


class Case(NamedTuple):
    """An image's size, the size after the resize, a crop and the number of a filter."""

    size: tuple[int, int]
    resized: tuple[int, int]
    crop: tuple[int, int]
    channels: int
    resample: int


def random_case(generator: np.random.Generator) -> Case:
    """Sizes up and down, with edges that stay, with crops larger, smaller and odd, and tall images that shrink."""
    bound = int(generator.choice(SIZES))
    height, width, new_height, new_width = (int(edge) for edge in generator.integers(1, bound + 1, 4))
    kind = int(generator.integers(8))
    if kind == 0:
        new_height = height
    elif kind == 1:
        new_width = width
    elif kind == 2:
        new_height, new_width = max(1, height // 3), max(1, width - int(generator.integers(0, 3)))
    crop_height, crop_width = (int(edge) for edge in generator.integers(1, bound + 20, 2))
    if generator.integers(4) == 0:
        crop_height, crop_width = new_height, new_width
    channels, resample = int(generator.choice([1, 3, 3])), int(generator.choice([2, 2, 3, 3, 1, 4, 5]))
    return Case((height, width), (new_height, new_width), (crop_height, crop_width), channels, resample)


FIXED = [
    ((1, 1), (288, 288), (256, 256)),
    ((1, 50), (31, 40), (256, 256)),
    ((50, 1), (40, 31), (33, 31)),
    ((2, 3), (224, 336), (224, 224)),
    ((256, 256), (256, 256), (256, 256)),
    ((256, 256), (256, 256), (255, 77)),
    ((288, 288), (288, 288), (256, 256)),
    ((375, 500), (288, 384), (256, 256)),
    ((500, 375), (384, 288), (256, 256)),
    ((480, 640), (224, 298), (256, 256)),
    ((2000, 50), (400, 47), (256, 256)),
    ((1080, 1920), (288, 512), (256, 256)),
    ((3000, 4000), (288, 384), (256, 256)),
    ((4000, 3000), (1, 1), (3, 3)),
    ((300, 7), (2, 900), (5, 256)),
]


def image_of(case: Case, generator: np.random.Generator) -> np.ndarray:
    """Random pixels, of which a third are black or white, so that sums go beyond both."""
    pixels = generator.integers(0, 256, (*case.size, case.channels), np.uint8)
    extreme = generator.integers(0, 6, pixels.shape[:2], np.uint8)
    pixels[extreme == 0] = 0
    pixels[extreme == 1] = 255
    return pixels


def by_pillow(pixels: np.ndarray, case: Case) -> np.ndarray:
    """(channels, *crop): resized by Pillow, then cropped."""
    grey = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    resized = np.asarray(picture.resize(case.resized[::-1], Resampling(case.resample)))
    room = [(edge - crop) // 2 for edge, crop in zip(case.resized, case.crop, strict=True)]
    result = np.zeros((*case.crop, case.channels), np.uint8)
    rows, columns = (range(max(0, -a), min(c, e - a)) for a, c, e in zip(room, case.crop, case.resized, strict=True))
    resized = resized.reshape(*case.resized, case.channels)
    result[rows.start : rows.stop, columns.start : columns.stop] = resized[
        rows.start + room[0] : rows.stop + room[0], columns.start + room[1] : columns.stop + room[1]
    ]
    return result.transpose(2, 0, 1)


def strided(pixels: np.ndarray, gap: int, lead: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """The same pixels so many bytes behind an aligned address, with a gap between rows, which end where memory does."""
    height, width, channels = pixels.shape
    pitch = width * channels + gap
    memory = torch.full((lead + height * pitch - gap,), MARK, dtype=torch.uint8, device=device)
    view = memory.as_strided(pixels.shape, (pitch, channels, 1), lead)
    view.copy_(torch.from_numpy(pixels))
    return view


def outputs(
    channels: int, height: int, width: int, device: torch.device | str = "cpu"
) -> dict[str, tuple[Tensor, Tensor]]:
    """Tensors that a result goes to, (channels, height, width), and the memory around each."""

    def marked(*shape: int) -> Tensor:
        return torch.full(shape, MARK, dtype=torch.uint8, device=device)

    planes = marked(3, channels, height, width)
    interleaved = marked(3, height, width, channels)
    spread = marked(channels + 1, height + 2, 2 * width + 3)
    return {
        "planes": (planes[1], planes),
        "interleaved": (interleaved[1].permute(2, 0, 1), interleaved),
        "spread": (spread[:channels, 1 : height + 1, 1 : 2 * width + 1 : 2], spread),
    }


IMAGE = torch.zeros(5, 6, 3, dtype=torch.uint8)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "float": ({"image": IMAGE.float()}, "an image of type torch.uint8, got torch.float32"),
    "channels": ({"image": torch.zeros(5, 6, 4, dtype=torch.uint8)}, r"\(height, width, 1 or 3\)"),
    "rank": ({"image": torch.zeros(1, 5, 6, 3, dtype=torch.uint8)}, r"\(height, width, 1 or 3\)"),
    "planes": ({"image": torch.zeros(3, 5, 6, dtype=torch.uint8).permute(1, 2, 0)}, "follow one another"),
    "empty": ({"image": IMAGE[:0]}, "edges of 1 to"),
    "size": ({"size": [0, 4]}, "two edges of 1 to"),
    "three sizes": ({"size": [1, 2, 3]}, "two numbers as size and as offset, got 3 and 2"),
    "huge": ({"size": [2**31, 4]}, "two edges of 1 to"),
    "offset": ({"offset": [2**31, 0]}, "an offset of fewer than"),
    "nearest": ({"resample": 0}, "number of a filter"),
    "no filter": ({"resample": 6}, "number of a filter"),
    "out type": ({"out": torch.zeros(3, 4, 4)}, "out of type torch.uint8, got torch.float32"),
    "out shape": ({"out": torch.zeros(1, 4, 4, dtype=torch.uint8)}, r"out of shape \(3, height, width\)"),
}
"""Changed arguments of the overloads, and what their error says."""


def refused(name: str, device: torch.device | str = "cpu") -> tuple[list[Any], str]:
    """Arguments of an overload, one of them wrong, and what its error says."""
    changed, message = REFUSED[name]
    out = torch.zeros(3, 4, 4, dtype=torch.uint8)
    given: dict[str, Any] = {"image": IMAGE, "size": [4, 4], "offset": [0, 0], "resample": 2, "out": out} | changed
    arguments = [given["image"], given["size"], given["offset"], given["resample"], False, False, given["out"]]
    return [value.to(device) if isinstance(value, Tensor) else value for value in arguments], message
