"""Segmentation maps as colours over a photo, with a legend."""

import colorsys
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mobilevit_fast.cli.console import percent, printable

_OPACITY = 0.55
_GOLDEN_RATIO = 0.618034  # hues this far apart stay distinct however many there are
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_LEGEND_LINES, _LONGEST_LABEL = 20, 60
_ROWS = 64


@dataclass(frozen=True)
class Share:
    """How much of a photo one class takes.

    Attributes:
        index: of the class.
        label: its name.
        share: of all pixels, in (0, 1].
    """

    index: int
    label: str
    share: float

    @property
    def is_background(self) -> bool:
        """Whether the class means "nothing of interest": it is not painted."""
        return self.label.lower() == "background"


def shares(classes: torch.Tensor, id2label: dict[int, str]) -> list[Share]:
    """The classes of a map (height, width) of class ids, the largest first."""
    found = [
        Share(index, id2label.get(index, f"LABEL_{index}"), count / classes.numel())
        for index, count in enumerate(classes.flatten().bincount().tolist())
        if count
    ]
    return sorted(found, key=lambda one: (-one.share, one.index))


def colour(index: int) -> tuple[int, int, int]:
    """The colour of a class, RGB."""
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def paint(photo: Image.Image, classes: torch.Tensor, found: list[Share]) -> Image.Image:
    """The photo with its classes in colour and a legend in the lower left corner.

    Args:
        photo: RGB.
        classes: (height, width) of the photo, class ids.
        found: the classes to paint, as `shares` gives them.

    Returns:
        RGB, of the photo's size.
    """
    picture = photo.copy()
    tables = {one.index: _mixed_with(colour(one.index)) for one in found if not one.is_background}
    # Some rows at a time: what is made for them is small beside the photo.
    for top in range(0, photo.height, _ROWS):
        rows = photo.crop((0, top, photo.width, min(top + _ROWS, photo.height)))
        ids = classes[top : top + _ROWS].numpy()  # (rows, width)
        for index, table in tables.items():
            where = ids == index
            if where.any():
                picture.paste(rows.point(table), (0, top), Image.fromarray(where))
    legend = _legend(found, text_height=max(11, min(photo.size) // 32))
    legend.thumbnail(picture.size)
    picture.paste(legend, (0, picture.height - legend.height))
    return picture


def _mixed_with(colour: tuple[int, int, int]) -> list[int]:
    """Values 0 to 255 of red, then of green and blue, mixed with a colour."""
    values = np.arange(256, dtype=np.float32)
    mixed = [values + _OPACITY * (np.float32(channel) - values) for channel in colour]
    return np.concatenate(mixed).round().astype(int).tolist()


def _legend(found: list[Share], text_height: int) -> Image.Image:
    lines = [(one, f"{printable(one.label)[:_LONGEST_LABEL]}  {percent(one.share)}") for one in found[:_LEGEND_LINES]]
    font = ImageFont.load_default(size=text_height)
    pad, step = text_height // 2, round(1.5 * text_height)
    width = max(round(font.getlength(text)) for _, text in lines)
    picture = Image.new("RGB", (width + step + 3 * pad, len(lines) * step + 2 * pad), _PAPER)
    draw = ImageDraw.Draw(picture)
    for line, (one, text) in enumerate(lines):
        top = pad + line * step
        swatch = (pad, top, pad + text_height, top + text_height)
        draw.rectangle(swatch, fill=_PAPER if one.is_background else colour(one.index), outline=_INK)
        draw.text((2 * pad + step, top + text_height / 2), text, fill=_INK, font=font, anchor="lm")
    return picture
