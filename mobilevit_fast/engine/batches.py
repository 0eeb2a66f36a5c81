"""Images that lie in memory as the model reads them, computed batch by batch without a look at each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
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
    logits = torch.cat([parts[first] for first in firsts])
    finite = logits.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        raise ValueError(f"{name} {int(finite.logical_not().nonzero()[0])}: {NOT_FINITE}")
    return logits
