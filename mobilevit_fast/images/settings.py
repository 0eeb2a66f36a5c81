"""Names, defaults and accepted values of the image processor's settings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from PIL.Image import Resampling

from mobilevit_fast.limits import shortened

CHANNELS_FIRST = "channels_first"
CHANNELS_LAST = "channels_last"

_RESIZE_KEYS: tuple[frozenset[str], ...] = (
    frozenset({"height", "width"}),
    frozenset({"shortest_edge"}),
    frozenset({"shortest_edge", "longest_edge"}),
    frozenset({"max_height", "max_width"}),
)
_LARGEST_EDGE = 2**31 - 1  # of Pillow's images
_CROP_KEYS = (frozenset({"height", "width"}),)


@dataclass(frozen=True)
class ImageSettings:
    """Checked settings of one preprocessing run; the defaults are those of MobileViT.

    The steps run in this order: convert to RGB, resize, rescale, crop, normalise, flip the channels.

    Attributes:
        do_convert_rgb: make three channels of whatever comes: grey is repeated, transparency is laid over
            white. Off, the channels stay as they are; files and encoded bytes are read as RGB in either case,
            then with the colours that transparency hides.
        do_resize: resize to `size`.
        size: `{"height", "width"}` in pixels; `{"shortest_edge"}` keeps the aspect ratio, optionally bounded
            by `"longest_edge"`; `{"max_height", "max_width"}` fits the image into a box. A pair is (height,
            width). An int is the shortest edge, or both edges of a square if `default_to_square`.
        default_to_square: how to read an int given as `size`.
        resample: filter of the resize, a `PIL.Image.Resampling` or its number (2 bilinear, 3 bicubic).
        do_rescale: multiply by `rescale_factor`; the result is float32.
        rescale_factor: 1/255 maps bytes to [0, 1].
        do_center_crop: cut out the centre, or pad with zeros where the image is smaller.
        crop_size: `{"height", "width"}` in pixels, a pair (height, width), or an int for a square.
        do_normalize: subtract `image_mean` and divide by `image_std`. Apple's checkpoints do not.
        image_mean: one number, or one per channel **in the order the image came in (RGB)**: normalisation
            runs before the flip, so the red mean meets the red channel whether or not the channels are
            flipped.
        image_std: as `image_mean`, and not zero.
        do_flip_channel_order: reverse the channels, RGB to BGR, the order Apple's checkpoints expect.
        do_reduce_labels: in segmentation maps, make the background label 0 the ignored label 255 and count
            every other label down by one.
        input_data_format: `"channels_first"` or `"channels_last"` for arrays and tensors; None tells it by
            the shape.

    Raises:
        ValueError: a value of the wrong kind; the message names the setting, what it expects and what came.
    """

    do_convert_rgb: bool = False
    do_resize: bool = True
    size: dict[str, int] | None = field(default_factory=lambda: {"shortest_edge": 224})
    default_to_square: bool = False
    resample: Resampling | None = Resampling.BICUBIC
    do_rescale: bool = True
    rescale_factor: float | None = 1 / 255
    do_center_crop: bool = True
    crop_size: dict[str, int] | None = field(default_factory=lambda: {"height": 256, "width": 256})
    do_normalize: bool = False
    image_mean: float | tuple[float, ...] | None = (0.5, 0.5, 0.5)
    image_std: float | tuple[float, ...] | None = (0.5, 0.5, 0.5)
    do_flip_channel_order: bool = True
    do_reduce_labels: bool = False
    input_data_format: str | None = None

    def __post_init__(self) -> None:
        for name in _SWITCHES:
            self._set(name, _switch(name, getattr(self, name)))
        self._set("size", _size("size", self.size, _RESIZE_KEYS, self.default_to_square))
        self._set("crop_size", _size("crop_size", self.crop_size, _CROP_KEYS, True))
        self._set("resample", _resampling(self.resample))
        self._set("rescale_factor", _number("rescale_factor", self.rescale_factor))
        self._set("image_mean", _per_channel("image_mean", self.image_mean))
        self._set("image_std", _per_channel("image_std", self.image_std))
        _check_data_format(self.input_data_format)
        for switch, needed in _NEEDS:
            if getattr(self, switch) and getattr(self, needed) is None:
                raise ValueError(f"{needed}: expected a value because {switch} is true, got None")
        std = self.image_std if isinstance(self.image_std, tuple) else (self.image_std,)
        if self.do_normalize and 0 in std:
            raise ValueError(f"image_std: expected numbers other than 0, got {self.image_std}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the way for a frozen dataclass to normalise its own fields

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that JSON can hold; an unset `input_data_format` is left out."""
        values: dict[str, Any] = {}
        for name in SETTING_NAMES:
            value = getattr(self, name)
            if isinstance(value, Resampling):
                value = int(value)
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, dict):
                value = dict(value)
            if not (name == "input_data_format" and value is None):
                values[name] = value
        return values


SETTING_NAMES: tuple[str, ...] = tuple(f.name for f in fields(ImageSettings))
_SWITCHES = tuple(f.name for f in fields(ImageSettings) if f.type is bool)
_NEEDS = (
    ("do_resize", "size"),
    ("do_resize", "resample"),
    ("do_rescale", "rescale_factor"),
    ("do_center_crop", "crop_size"),
    ("do_normalize", "image_mean"),
    ("do_normalize", "image_std"),
)


def check_names(names: Iterable[str], caller: str) -> None:
    """Raise TypeError naming every keyword that is no setting."""
    unknown = [name for name in names if name not in SETTING_NAMES]
    if unknown:
        came = ", ".join(map(repr, unknown))
        raise TypeError(f"{caller}: unknown keyword {came}; expected any of {', '.join(SETTING_NAMES)}")


def _switch(name: str, value: Any) -> bool:
    if value is None:  # configurations write null for "off"
        return False
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {shortened(value)}")
    return value


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name}: expected a number, got {shortened(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {shortened(value)}")
    return number


def _per_channel(name: str, value: Any) -> float | tuple[float, ...] | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _number(name, value)
    numbers = tuple(_number(f"{name}[{i}]", item) for i, item in enumerate(value))
    if not numbers or None in numbers:
        raise ValueError(f"{name}: expected one number per channel, got {shortened(value)}")
    return tuple(number for number in numbers if number is not None)


def _resampling(value: Any) -> Resampling | None:
    if value is None:
        return None
    if not isinstance(value, bool) and isinstance(value, int) and value in list(Resampling):
        return Resampling(value)
    filters = ", ".join(f"{int(item)} ({item.name.lower()})" for item in sorted(Resampling))
    raise ValueError(
        f"resample: expected a PIL.Image.Resampling or its number, one of {filters}; got {shortened(value)}"
    )


def _check_data_format(value: Any) -> None:
    if value not in (None, CHANNELS_FIRST, CHANNELS_LAST):
        raise ValueError(
            f'input_data_format: expected "{CHANNELS_FIRST}", "{CHANNELS_LAST}" or None, got {shortened(value)}'
        )


def _size(name: str, value: Any, allowed: tuple[frozenset[str], ...], int_is_square: bool) -> dict[str, int] | None:
    """A size in any accepted spelling, as the dictionary of edges that says the same."""
    if value is None:
        return None
    edges: Mapping[str, Any]
    if isinstance(value, Mapping):
        edges = value
    elif isinstance(value, Integral):
        edges = {"height": value, "width": value} if int_is_square else {"shortest_edge": value}
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        edges = {"height": value[0], "width": value[1]}
    else:
        raise ValueError(
            f"{name}: expected an int, a pair (height, width) or a dictionary of edges, got {shortened(value)}"
        )
    if frozenset(edges) not in allowed:
        choices = " or ".join("{" + ", ".join(sorted(keys)) + "}" for keys in allowed)
        raise ValueError(f"{name}: expected the keys {choices}, got {shortened(value)}")
    for key, edge in edges.items():
        is_whole = isinstance(edge, Integral) and not isinstance(edge, bool)
        if not is_whole or edge < 1:
            raise ValueError(f"{name}: expected {key} to be a positive int in pixels, got {shortened(edge)}")
        if edge > _LARGEST_EDGE:
            raise ValueError(f"{name}: expected {key} to be at most {_LARGEST_EDGE} pixels, got {shortened(edge)}")
    return {key: int(edge) for key, edge in edges.items()}
