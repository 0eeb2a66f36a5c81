"""Resizing and cropping of uint8 images, bit for bit as Pillow resizes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mobilevit_fast.kernels import Support
from mobilevit_fast.native import status
from mobilevit_fast.ops.registry import LIBRARY, NAMESPACE, BackendError

_NAME = "resize_crop"
BACKENDS = ("cpu", "cuda")
"""Where it runs, by the type of a device."""

for _backend in BACKENDS:
    # Named by backend: torch, as it ends, mistakes overloads of the very same arguments for each other.
    LIBRARY.define(
        f"{_NAME}.{_backend}(Tensor {_backend}_image, int[2] size, int[2] offset, int resample, bool rows_first, "
        "bool flip_channels, Tensor(a!) out) -> ()"
    )
    torch.library.register_fake(f"{NAMESPACE}::{_NAME}.{_backend}", lambda *arguments: None, lib=LIBRARY)

_BATCH = "resize_crop_batch"
LIBRARY.define(
    f"{_BATCH}.cuda(Tensor[] images, int[] sizes, int[] offsets, int resample, bool[] rows_first, bool flip_channels, "
    "Tensor(a!) out) -> ()"
)
torch.library.register_fake(f"{NAMESPACE}::{_BATCH}.cuda", lambda *arguments: None, lib=LIBRARY)

FILTERS = (1, 2, 3, 4, 5)
"""Numbers of the filters, as in ``PIL.Image.Resampling``: lanczos, bilinear, bicubic, box, hamming."""
CHANNELS = (1, 3)
"""Channels that an image may have. Pillow multiplies four by the last one, transparency, before it resizes."""


@cache
def supports_device(device: str) -> Support:
    """Whether the library for a type of device is loaded, and none from before it had this."""
    if device not in BACKENDS:
        return Support(False, f"expected an image on the CPU or on an NVIDIA GPU, got one on {device}")
    library, name = status()[device], device.upper()
    if not library.loaded:
        return Support(False, f"the {name} library is not loaded: {library.reason}")
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{_NAME}.{device}", name):
        return Support(False, f"the {name} library was built before it had a resize; build it again")
    return Support(True)


def resize_crop(
    image: Tensor,
    size: Sequence[int],
    crop: Sequence[int],
    resample: int,
    *,
    offset: Sequence[int] | None = None,
    rows_first: bool = False,
    flip_channels: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Resize an image to ``size`` and cut out ``crop``, of which only what the crop keeps is computed.

    The numbers are those of Pillow's ``Image.resize``: two passes with coefficients of 22 bits and uint8 between them.
    On a CPU it runs on the calling thread, without Python's global lock, so that several threads can resize at once.
    On a GPU it needs the CUDA library; there the sines of lanczos and hamming may differ in a coefficient's last bit.

    Args:
        image: (H, W, C) uint8, C 1 or 3. Pixels of a row follow one another; rows may lie apart.
        size: (height, width) of the whole image after the resize.
        crop: (height, width) of the result. What lies outside of the resized image is zero.
        resample: a number in ``FILTERS``.
        offset: (row, column) of the resized image where the crop begins, negative for padding; None for the centre,
            half a pixel above and left of it where the margin is odd.
        rows_first: whether the pass that changes the height comes first, as in Pillow 13 for tall images.
        flip_channels: reverse the channels.
        out: (C, *crop) uint8 of any strides for the result, so a view of a batch; None for a new one. On the device of
            the image.

    Returns:
        ``out``; a new one is dense.

    Raises:
        RuntimeError: arguments that do not fit together.
        BackendError: a GPU without the CUDA library.
    """
    if out is None:
        out = image.new_empty((image.shape[2], *crop))
    elif out.shape[1:] != tuple(crop):
        raise ValueError(
            f"{NAMESPACE}.{_NAME}: expected out of shape (channels, {crop[0]}, {crop[1]}), got {out.shape}"
        )
    if offset is None:
        offset = _centred(size, crop)
    operator: Any = torch.ops.mobilevit_fast.resize_crop
    overload = operator.cpu
    if image.is_cuda:
        _expect_gpu_library(_NAME)
        overload = operator.cuda
    overload(image, list(size), list(offset), int(resample), rows_first, flip_channels, out)
    return out


def resize_crop_batch(
    images: Sequence[Tensor],
    sizes: Sequence[Sequence[int]],
    crop: Sequence[int],
    resample: int,
    *,
    rows_first: Sequence[bool] | None = None,
    flip_channels: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Resize images of any sizes and cut out the centre of each, as :func:`resize_crop` does.

    On a GPU, 32 images at a time are one launch, beside that for their windows.

    Args:
        images: N of (H, W, C) uint8, C 1 or 3, all on one device and of as many channels.
        sizes: (height, width) of each after the resize.
        crop: (height, width) of the results.
        resample: a number in ``FILTERS``.
        rows_first: for each image, whether the pass that changes the height comes first; None for none.
        flip_channels: reverse the channels.
        out: (N, C, *crop) uint8 of any strides; None for a new one, which is channels_last.

    Returns:
        ``out``.

    Raises:
        RuntimeError, ValueError: arguments that do not fit together.
        BackendError: a GPU without the CUDA library.
    """
    if len(images) == 0:
        raise ValueError(f"{NAMESPACE}.{_BATCH}: expected one image or more, got none")
    orders = [False] * len(images) if rows_first is None else list(rows_first)
    if out is None:
        shape = (len(images), images[0].shape[2], *crop)
        out = torch.empty(shape, dtype=torch.uint8, device=images[0].device, memory_format=torch.channels_last)
    expected = (len(images), len(images), len(images), tuple(crop))
    if (len(sizes), len(orders), len(out), tuple(out.shape[2:])) != expected:
        raise ValueError(
            f"{NAMESPACE}.{_BATCH}: expected {len(images)} sizes and orders of passes, and out of shape "
            f"({len(images)}, channels, {crop[0]}, {crop[1]}), got {len(sizes)}, {len(orders)} and {tuple(out.shape)}"
        )
    if not out.is_cuda:
        for image, size, first, target in zip(images, sizes, orders, out, strict=True):
            resize_crop(image, size, crop, resample, rows_first=first, flip_channels=flip_channels, out=target)
        return out
    _expect_gpu_library(_BATCH)
    overload: Any = torch.ops.mobilevit_fast.resize_crop_batch.cuda
    offsets = [number for size in sizes for number in _centred(size, crop)]
    edges = [edge for size in sizes for edge in size]
    overload(list(images), edges, offsets, int(resample), orders, flip_channels, out)
    return out


def _centred(size: Sequence[int], crop: Sequence[int]) -> list[int]:
    return [(edge - kept) // 2 for edge, kept in zip(size, crop, strict=True)]


def _expect_gpu_library(name: str) -> None:
    support = supports_device("cuda")
    if not support.ok:
        raise BackendError(f"{NAMESPACE}.{name}: {support.reason}")
