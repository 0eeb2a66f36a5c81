"""Pictures for the tests of the image processor, and the processor they are held against."""

from typing import Any

import numpy as np
from PIL import Image

from testing.peers import import_transformers

PIL_MODES = (
    "1",
    "L",
    "P",
    "LA",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "I;16",
    "F",
)


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Random pixels: whole numbers in [0, 255], or fractions in [0, 1] for floating point."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.random(shape).astype(dtype)
    high = 2 if dtype == "bool" else 128 if dtype == "int8" else 256
    return generator.integers(0, high, shape).astype(dtype)


def picture(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A PIL image of noise; where the mode has transparency, that is noise too."""
    if mode in ("RGBA", "RGBa", "LA"):
        return Image.fromarray(noise((height, width, 4), seed=seed)).convert(mode)
    return Image.fromarray(noise((height, width, 3), seed=seed)).convert(mode)


def peer(**settings: Any) -> Any:
    """The Pillow-based MobileViT processor of transformers."""
    import_transformers()
    from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil

    return MobileViTImageProcessorPil(**settings)


def assert_identical(ours: Any, theirs: Any) -> None:
    """The same dtype, shape and bits."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()
