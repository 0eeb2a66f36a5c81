"""The steps of image preprocessing, on numpy arrays.

Every image is an array (channels, height, width). The arithmetic is that of the Pillow-based processor of
transformers, bit for bit: intermediate dtypes and rounding are therefore part of the contract, not an
implementation detail. No step changes its input.
"""

import numpy as np
from PIL.Image import Resampling

from mobilevit_fast.images.resizing import centred_slices, resize_and_crop, resize_by_pillow, supports

IGNORED_LABEL = 255
"""The label that losses leave out."""


class ImageError(ValueError):
    """An image that cannot be used; the message is one line and says what was expected and what came."""


def convert_array_to_rgb(image: np.ndarray) -> np.ndarray:
    """Three channels of an image of 1, 3 or 4: grey is repeated, transparency is laid over white.

    Args:
        image: (1 | 3 | 4, height, width), any real dtype. Floating point RGBA must lie in [0, 1].

    Returns:
        (3, height, width), the dtype of `image`.

    Raises:
        ImageError: floating point RGBA outside [0, 1].
    """
    channels = image.shape[0]
    if channels == 1:
        return np.repeat(image, 3, axis=0)
    if channels != 4:
        return image
    if np.issubdtype(image.dtype, np.floating) and (image.min() < 0.0 or image.max() > 1.0):
        raise ImageError(f"expected floating point RGBA within [0, 1], got [{image.min()}, {image.max()}]")
    is_integer = np.issubdtype(image.dtype, np.integer)
    white = 255 if is_integer else 1.0
    alpha = image[3:4] / white
    blended = alpha * image[:3] + (1 - alpha) * white
    return (np.round(blended) if is_integer else blended).astype(image.dtype)


def resized_shape(height: int, width: int, size: dict[str, int]) -> tuple[int, int]:
    """Height and width in pixels that `size` asks for, given an image's own; fractions are cut off.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        size: checked edges, see `ImageSettings.size`.

    Raises:
        ImageError: an edge would come out as zero pixels.
    """
    if "shortest_edge" in size:
        result = _scaled_to_shortest_edge(height, width, size["shortest_edge"], size.get("longest_edge"))
    elif "max_height" in size:
        scale = min(size["max_height"] / height, size["max_width"] / width)
        result = int(height * scale), int(width * scale)
    else:
        result = size["height"], size["width"]
    if min(result) < 1:
        raise ImageError(f"expected at least one pixel after the resize to {size}, got {result} from {(height, width)}")
    return result


def _scaled_to_shortest_edge(height: int, width: int, shortest: int, longest: int | None) -> tuple[int, int]:
    exact: float = shortest
    if longest is not None and float(max(height, width)) / float(min(height, width)) * shortest > longest:
        exact = longest * float(min(height, width)) / float(max(height, width))
    short = round(exact)
    if longest is not None and short == min(height, width):
        return height, width  # as it is, even a fraction of a pixel past the bound
    # The long edge follows the unrounded short one, so that it keeps to the bound.
    if width <= height:
        return int(exact * height / width), short
    return short, int(exact * width / height)


def resize(image: np.ndarray, height: int, width: int, resample: Resampling) -> np.ndarray:
    """Resize with Pillow, as uint8 images.

    Args:
        image: (channels, image height, image width), 1 to 4 channels. Either whole numbers in [0, 255],
            whatever the dtype, or floating point within [0, 1], which is brought to [0, 255] and back and so
            keeps 256 levels.
        height: of the result, in pixels.
        width: of the result, in pixels.
        resample: Pillow's filter.

    Returns:
        (channels, height, width): uint8 for whole numbers, float32 for values within [0, 1].

    Raises:
        ImageError: values that fit neither description.
    """
    is_fraction = holds_fractions(image)
    pixels = to_bytes(image).transpose(1, 2, 0)
    if supports(pixels.shape, resample).ok:
        resized = resize_and_crop(pixels, (height, width), (height, width), resample).numpy()
    else:
        resized = resize_by_pillow(pixels, (height, width), resample).transpose(2, 0, 1)
    return rescale(resized, 1 / 255) if is_fraction else resized


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Fractions of white, or whole numbers of [0, 255], as uint8; others are an ImageError."""
    return (rescale(image, 255) if holds_fractions(image) else image).astype(np.uint8, copy=False)


def holds_fractions(image: np.ndarray) -> bool:
    """Whether the values are fractions of white (True) or whole numbers of [0, 255] (False)."""
    if image.dtype == np.uint8:
        return False
    low, high = image.min(), image.max()
    is_floating = np.issubdtype(image.dtype, np.floating)
    # Comparisons with NaN are false, so it ends in the refusal.
    if low >= 0 and high <= 255 and (not is_floating or np.allclose(image, image.astype(np.int64))):
        return False
    if low >= 0 and high <= 1 and is_floating:
        return True
    raise ImageError(
        f"expected fractions within [0, 1] or whole numbers within [0, 255] to resize, got {image.dtype} "
        f"within [{low}, {high}]"
    )


def rescale(image: np.ndarray, factor: float) -> np.ndarray:
    """`image * factor`, multiplied in float64 and rounded once to float32."""
    return (image.astype(np.float64) * factor).astype(np.float32)


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut out the centre; along an edge shorter than asked for, centre the image between zeros.

    Where the margin is odd, the crop lies half a pixel above and left of the centre, the padded image half a
    pixel below and right of it.

    Args:
        image: (channels, image height, image width).
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        (channels, height, width), the dtype of `image`.
    """
    result = np.zeros((image.shape[0], height, width), dtype=image.dtype)
    to_rows, from_rows = centred_slices(image.shape[1], height)
    to_columns, from_columns = centred_slices(image.shape[2], width)
    result[:, to_rows, to_columns] = image[:, from_rows, from_columns]
    return result


def normalize(image: np.ndarray, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> np.ndarray:
    """`(image - mean) / std`, in the image's dtype if that is floating point, else in float32.

    Args:
        image: (channels, height, width).
        mean: one number, or one per channel in the order of the channels.
        std: likewise, not zero.

    Raises:
        ImageError: the number of values is not the number of channels.
    """
    if not np.issubdtype(image.dtype, np.floating):
        image = image.astype(np.float32)
    return (image - _column("image_mean", mean, image)) / _column("image_std", std, image)


def _column(name: str, values: float | tuple[float, ...], image: np.ndarray) -> np.ndarray:
    channels = image.shape[0]
    per_channel = values if isinstance(values, tuple) else (values,) * channels
    if len(per_channel) != channels:
        raise ImageError(f"expected {name} to have one value for each of {channels} channels, got {len(per_channel)}")
    return np.array(per_channel, dtype=image.dtype)[:, None, None]


def flip_channel_order(image: np.ndarray) -> np.ndarray:
    """The channels reversed: RGB to BGR and back, RGBA to ABGR."""
    return image[::-1]


def reduce_labels(labels: np.ndarray) -> np.ndarray:
    """Label 0 (background) becomes 255 (ignored), 255 stays, every other label counts down by one.

    Args:
        labels: class ids, any shape and integer dtype.

    Returns:
        The same shape, int64.
    """
    wide = labels.astype(np.int64)
    return np.where((wide == 0) | (wide == IGNORED_LABEL), IGNORED_LABEL, wide - 1)
