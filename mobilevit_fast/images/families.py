"""Image settings of the code bases whose checkpoints come without a preprocessor_config.json."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Resampling

from mobilevit_fast.files import find, read_json_object
from mobilevit_fast.images.settings import ImageSettings
from mobilevit_fast.limits import shortened

_APPLE_BORDER = 32  # pixels that a centre crop leaves of the shorter edge, 16 on either side
_TIMM = {"crop_pct": 0.9, "interpolation": "bicubic", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def family_settings(naming: str, image_size: int | Sequence[int], config_file: Path) -> ImageSettings:
    """Settings that a family's checkpoints were evaluated with; see `MobileViTImageProcessor.for_checkpoint`.

    Args:
        naming: whose names the checkpoint uses, "huggingface", "cvnets" or "timm".
        image_size: pixels, of the model's configuration: one number, or (height, width).
        config_file: where a config.json may lie, which in timm's family has a `pretrained_cfg`.

    Raises:
        OSError: that file cannot be read.
        ValueError: another family, or values in the file that no settings can have.
    """
    if naming not in _FAMILIES:
        raise ValueError(f"expected a checkpoint of {', '.join(_FAMILIES)}, got {shortened(naming)}")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    values = read_json_object(config_file) if naming == "timm" and find(config_file) is not None else {}
    try:
        settings = _FAMILIES[naming](min(height, width), values)
        return ImageSettings(crop_size={"height": height, "width": width}, **settings)
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from error


def _apple(edge: int, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "size": {"shortest_edge": edge + _APPLE_BORDER},
        "resample": Resampling.BILINEAR,
        "do_normalize": False,
        "do_flip_channel_order": True,
    }


def _timm(edge: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """timm's evaluation settings for MobileViT, replaced by what the checkpoint says of itself."""
    own = values.get("pretrained_cfg")
    described = {**_TIMM, **(own if isinstance(own, Mapping) else {})}
    crop, interpolation = described["crop_pct"], described["interpolation"]
    is_number = isinstance(crop, int | float) and not isinstance(crop, bool)
    if not is_number or not 1 / edge <= crop <= 1:
        raise ValueError(f"expected crop_pct to be a share of the image, up to 1, got {shortened(crop)}")
    filters = [one.name.lower() for one in Resampling]
    if not isinstance(interpolation, str) or interpolation.lower() not in filters:
        raise ValueError(f"expected interpolation to be one of {', '.join(filters)}, got {shortened(interpolation)}")
    return {
        "size": {"shortest_edge": math.floor(edge / crop)},
        "resample": Resampling[interpolation.upper()],
        "do_normalize": True,
        "image_mean": described["mean"],
        "image_std": described["std"],
        "do_flip_channel_order": False,
    }


_FAMILIES = {"huggingface": _apple, "cvnets": _apple, "timm": _timm}
