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
    LIBRARY.define(
        f"{_NAME}.{_backend}(Tensor image, int[2] size, int[2] offset, int resample, bool rows_first, "
        "bool flip_channels, Tensor(a!) out) -> ()"
    )
    torch.library.register_fake(f"{NAMESPACE}::{_NAME}.{_backend}", lambda *arguments: None, lib=LIBRARY)

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
        offset = [(edge - kept) // 2 for edge, kept in zip(size, crop, strict=True)]
    operator: Any = torch.ops.mobilevit_fast.resize_crop
    overload = operator.cpu
    if image.is_cuda:
        support = supports_device("cuda")
        if not support.ok:
            raise BackendError(f"{NAMESPACE}.{_NAME}: {support.reason}")
        overload = operator.cuda
    overload(image, list(size), list(offset), int(resample), rows_first, flip_channels, out)
    return out
