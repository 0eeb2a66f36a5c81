"""Images in memory, computed batch by batch without a look at each: as they are, or resized on their GPU."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mobilevit_fast.engine.model import NOT_FINITE, Answers
from mobilevit_fast.engine.preprocessing import Preprocessing
from mobilevit_fast.engine.stream import Plan
from mobilevit_fast.engine.workers import Workers


class Batch(NamedTuple):
    """Images (N, height, width, 3) uint8 in the memory where they are, and what each is called with its number."""

    name: str
    images: Tensor


def as_they_are(images: Any, preprocessing: Preprocessing) -> Batch | None:
    """A batch of images that the image processor leaves what they are.

    None for all others: those that are resized or cropped, are no uint8 or on a GPU, or whose channels could be any of
    their axes; and for none.
    """
    name = "tensor" if isinstance(images, Tensor) else "array"
    if not isinstance(images, np.ndarray | Tensor) or images.ndim != 4 or preprocessing.settings.input_data_format:
        return None
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or not images.flags.writeable or min(images.strides) < 0:
            return None  # PyTorch has no such tensors
        images = torch.from_numpy(images)
    is_last = images.shape[3] == 3
    if (
        len(images) == 0
        or images.dtype != torch.uint8
        or images.device.type != "cpu"
        or is_last == (images.shape[1] == 3)
    ):
        return None
    images = images if is_last else images.permute(0, 2, 3, 1)  # (N, 3, height, width) -> (N, height, width, 3)
    return Batch(name, images) if preprocessing.keeps(images.shape[1], images.shape[2]) else None


def on_their_gpu(images: Any, preprocessing: Preprocessing, device: torch.device) -> list[Tensor] | None:
    """Images that a GPU holds, (height, width, 3) uint8 each.

    Args:
        images: (N, height, width, 3) or (N, 3, height, width), or a list of such images of any sizes.
        preprocessing: of them.
        device: of the model.

    Returns:
        None for all others: those of another device, no uint8, or whose channels could be any of their axes; and for
        none.
    """
    if device.type == "cpu" or preprocessing.settings.input_data_format is not None:
        return None
    if isinstance(images, Tensor):
        images = list(images) if images.ndim == 4 else None
    if not isinstance(images, list | tuple) or not images:
        return None
    found = []
    for image in images:
        if not isinstance(image, Tensor) or (image.device, image.dtype, image.ndim) != (device, torch.uint8, 3):
            return None
        is_last = image.shape[2] == 3
        if is_last == (image.shape[0] == 3) or image.numel() == 0:
            return None
        found.append(image if is_last else image.permute(1, 2, 0))  # (3, height, width) -> (height, width, 3)
    return found


def logits_where_they_are(
    images: Sequence[Tensor], compute: Callable[[Tensor], Answers], preprocessing: Preprocessing, batch_size: int
) -> Tensor | None:
    """Logits of images of ``on_their_gpu``, which are resized there; None where that is not possible.

    Raises:
        ImageError: an image would have too many pixels.
        ValueError: the answer for an image is not finite; the message has its number.
        Exception: whatever the model raised.
    """
    parts = []
    for first in range(0, len(images), batch_size):
        resized = preprocessing.resized(images[first : first + batch_size])
        if resized is None:
            return None
        with torch.inference_mode():
            logits = compute(resized).logits
        assert logits is not None
        parts.append(logits)
    return _finite("tensor", torch.cat(parts))


def logits_of(batch: Batch, compute: Callable[[Tensor], Answers], plan: Plan, slot: Callable[[int], Tensor]) -> Tensor:
    """Logits of a batch of any size.

    Args:
        batch: on the host.
        compute: the model; called by several threads at once, each with other images.
        plan: how many images a call has. Where the cores that decode compute as well, each does by itself, from where
            the images lie; else there are as many threads as slots, which copy while others wait for their answers.
        slot: makes memory for so many images that a GPU copies from.

    Raises:
        ValueError: the answer for an image is not finite; the message has its number.
        Exception: whatever the model raised.
    """
    name, images = batch
    size, on_cores = plan.batch_size, plan.computing is None
    threads = plan.workers if on_cores else plan.slots
    errors: list[BaseException] = []
    parts: dict[int, Tensor] = {}
    done = threading.Semaphore(0)
    slots: queue.SimpleQueue[Tensor | None] = queue.SimpleQueue()
    for _ in range(threads):
        slots.put(None if on_cores else slot(size))

    def one(first: int) -> None:
        part, place = images[first : first + size], slots.get()
        try:
            with torch.inference_mode():
                part = part if place is None else place[: len(part)].copy_(part)
                logits = compute(part.permute(0, 3, 1, 2)).logits  # (N, height, width, 3) -> (N, 3, height, width)
            assert logits is not None
            parts[first] = logits
        finally:
            slots.put(place)
            done.release()

    workers = Workers(threads, "mobilevit_fast compute", errors.append, alone=on_cores)
    try:
        firsts = range(0, len(images), size)
        for first in firsts:
            workers.submit((first,), partial(one, first))
        for _ in firsts:
            done.acquire()
            if errors:
                break
    finally:
        workers.close()
    if errors:
        raise errors[0]
    return _finite(name, torch.cat([parts[first] for first in firsts]))


def _finite(name: str, logits: Tensor) -> Tensor:
    """The same logits.

    Raises:
        ValueError: those of an image are not finite.
    """
    finite = logits.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        raise ValueError(f"{name} {int(finite.logical_not().nonzero()[0])}: {NOT_FINITE}")
    return logits
