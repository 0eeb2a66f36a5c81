"""Image files of every mode and layout that the engine has to read."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth noise, which JPEG keeps the structure of."""
    low = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def wide_grey(height: int, width: int) -> bytes:
    values = np.random.default_rng(0).integers(0, 65536, (height, width), dtype=np.uint16)
    return encoded(Image.fromarray(values), "PNG")


def fractions(height: int, width: int) -> bytes:
    """Grey of floating point values within [0, 1]."""
    return encoded(Image.fromarray(np.random.default_rng(0).random((height, width), dtype=np.float32)), "TIFF")


def animated(height: int, width: int) -> bytes:
    frames = [picture(height, width, seed, "P") for seed in (1, 2)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def transparent(height: int, width: int) -> bytes:
    image = picture(height, width, 3, "RGBA")
    image.putalpha(picture(height, width, 4, "L"))
    return encoded(image, "PNG")


def turned(height: int, width: int, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(height, width, orientation), exif=exif)


def every_kind() -> dict[str, bytes]:
    """File contents of different modes, formats and sizes by name."""
    return {
        "wide.jpg": encoded(picture(60, 100)),
        "tall.jpg": encoded(picture(131, 60, 1), quality=60),
        "progressive.jpg": encoded(picture(77, 91, 2), progressive=True),
        "full-colour.jpg": encoded(picture(80, 81, 3), subsampling=0),
        "grey.jpg": encoded(picture(70, 90, 4, "L")),
        "cmyk.jpg": encoded(picture(70, 90, 5, "CMYK")),
        "turned.jpg": turned(64, 90, 6),
        "upright.jpg": turned(64, 90, 1),
        "grey.png": encoded(picture(65, 66, 6, "L"), "PNG"),
        "palette.png": encoded(picture(90, 70, 7, "P"), "PNG"),
        "two.png": encoded(picture(90, 70, 8, "1"), "PNG"),
        "transparent.png": transparent(70, 71),
        "wide-grey.png": wide_grey(75, 70),
        "fractions.tiff": fractions(70, 70),
        "animated.gif": animated(66, 64),
        "small.webp": encoded(picture(20, 30, 9), "WEBP"),
        "exact.bmp": encoded(picture(64, 64, 10), "BMP"),
    }


def written(folder: Path, files: dict[str, bytes]) -> list[Path]:
    paths = [folder / name for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_bytes(content)
    return paths
