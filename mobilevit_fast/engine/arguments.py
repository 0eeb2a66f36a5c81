"""Arguments of an engine: what they are by default, and which make sense."""

import os
from collections.abc import Sequence

import torch
from torch import nn

from mobilevit_fast import limits

BATCH_SIZES = {"cpu": (1, 8), "cuda": (1, 8, 32, 128, 256)}
"""Images of one call of the model, by kind of device: 8 keep a core's cache warm, 256 a GPU's multiprocessors busy."""

_MAX_THREADS = 1024


def checked_batch_sizes(given: Sequence[int] | None, kind: str, shape: tuple[int, int] | None) -> tuple[int, ...]:
    """Batch sizes, ascending; on a CPU none whose images are larger together than the limit of one.

    Args:
        given: None for those of the kind of device.
        kind: of device.
        shape: (height, width) of the images, where it is known.
    """
    sizes = BATCH_SIZES[kind] if given is None else tuple(given)
    if not sizes:
        raise ValueError("batch_sizes: expected at least one, got none")
    sizes = tuple(sorted({positive("batch_sizes", size) for size in sizes}))
    if kind == "cuda" or shape is None:
        return sizes
    most = max(1, limits.MAX_PIXELS // (shape[0] * shape[1]))
    return tuple(size for size in sizes if size <= most) or (most,)


def positive(name: str, value: int) -> int:
    """A number of things, at least one.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a positive whole number, got {value!r}")
    return value


def checked_device(model: nn.Module, cuda_graphs: bool | str) -> torch.device:
    """The device that a model is on, which goes with what was said of CUDA graphs."""
    if cuda_graphs not in ("auto", True, False):
        raise ValueError(f'Engine: expected cuda_graphs to be "auto", True or False, got {cuda_graphs!r}')
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if device.type not in BATCH_SIZES:
        raise ValueError(f"Engine: expected a model on the CPU or on a GPU of CUDA, got one on {device}")
    if cuda_graphs is True and device.type != "cuda":
        raise ValueError(f"Engine: expected a model on a GPU for cuda_graphs=True, got one on {device}")
    return device


def checked_threads(count: int | None) -> int:
    """A number of threads that a process may have; None for one on each core."""
    if count is None:
        return len(os.sched_getaffinity(0))
    if positive("decode_threads", count) > _MAX_THREADS:
        raise ValueError(f"decode_threads: expected at most {_MAX_THREADS}, got {count}")
    return count
