"""Models and their image processors by name: folder, weights file, model id of the hub, or `digits`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from mobilevit_fast.acceleration import accelerate
from mobilevit_fast.checkpoints import Checkpoint, CheckpointError, build_model, read_checkpoint
from mobilevit_fast.files import find, user_path
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.images.processor import PREPROCESSOR_CONFIG
from mobilevit_fast.models import MobileViTPreTrainedModel

DIGITS = "digits"
"""The name of the checkpoint that comes with the package."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DEVICES = ("cpu", "cuda", "mps", "xpu")


class FoundProcessor(NamedTuple):
    """An image processor, and what had to be assumed for want of settings, in one line; None if nothing had."""

    processor: MobileViTImageProcessor
    assumed: str | None = None


@dataclass(frozen=True)
class Loaded:
    """A model ready to run, with the processor for its images.

    Attributes:
        assumed: see `FoundProcessor`.
    """

    model: MobileViTPreTrainedModel
    processor: MobileViTImageProcessor
    assumed: str | None = None


def dtype_of(name: str) -> torch.dtype:
    """A dtype by name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in DTYPES:
        raise ValueError(f"expected {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def device_of(name: str | None) -> torch.device:
    """A device of this machine by name, by default the GPU where there is one.

    Raises:
        ValueError: there is none of this name.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = f"expected {', '.join(_DEVICES)} or such as cuda:1, got {name!r}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(expected) from error
    if device.type not in _DEVICES:
        raise ValueError(expected)
    module = torch.get_device_module(device.type)
    count = module.device_count() if module.is_available() else 0
    if device.type != "cpu" and (device.index or 0) >= count:
        raise ValueError(f"expected a device of this machine, which has {count} of {device.type}, got {name!r}")
    return device


def read_source(source: str) -> Checkpoint:
    """The checkpoint in a folder, a file or on the hub; `digits` is the one in the package."""
    if source == DIGITS:
        from mobilevit_fast.data import digits_checkpoint

        return read_checkpoint(digits_checkpoint())
    return read_checkpoint(source)


def load(
    source: str,
    task: str | None = None,
    *,
    processor: str | None = None,
    device: torch.device,
    dtype: torch.dtype,
    accelerated: bool = False,
) -> Loaded:
    """Read a checkpoint and make its model ready.

    Args:
        source: folder, file, hub id or `digits`.
        task: "classification" or "segmentation"; None takes what the checkpoint is.
        processor: folder or hub id to take the image processor from; None looks beside the weights.
        device, dtype: where and in what to compute.
        accelerated: run fused operators. An `Engine` sees to that itself.

    Raises:
        CheckpointError, ValueError, OSError: something named does not exist or does not fit.
    """
    checkpoint = read_source(source)
    model = build_model(checkpoint, task, dtype=dtype).to(device)
    if model.config.num_labels == 0:
        raise CheckpointError(f"{checkpoint.path}: expected a model with classes, got one with num_labels=0")
    if accelerated:
        accelerate(model)
    return Loaded(model, *find_processor(source, checkpoint, processor))


def find_processor(source: str, checkpoint: Checkpoint, named: str | None) -> FoundProcessor:
    """The image processor of a checkpoint.

    The one that was named, else preprocessor_config.json beside the weights or in the model of the hub, else what the
    family of the checkpoint uses by default.
    """
    if named is not None:
        return FoundProcessor(MobileViTImageProcessor.from_pretrained(named))
    beside = checkpoint.path.parent
    if find(beside / PREPROCESSOR_CONFIG) is not None:
        return FoundProcessor(MobileViTImageProcessor.from_pretrained(beside))
    if source != DIGITS and not user_path(source).exists():
        try:
            return FoundProcessor(MobileViTImageProcessor.from_pretrained(source))
        except OSError:  # a model without the file, or no connection: the defaults below, which are announced
            pass
    found = MobileViTImageProcessor.for_checkpoint(checkpoint)
    return FoundProcessor(
        found, f"{source}: no {PREPROCESSOR_CONFIG}, so images are prepared as {_family(checkpoint, found)}"
    )


def _family(checkpoint: Checkpoint, processor: MobileViTImageProcessor) -> str:
    """Whose settings these are, and the settings themselves."""
    owner = "timm's" if checkpoint.naming == "timm" else "Apple's"
    order = "BGR" if processor.do_flip_channel_order else "RGB"
    normalised = "" if processor.do_normalize else "not normalised, "
    edge, crop = processor.size["shortest_edge"], processor.crop_size
    return f"{owner} checkpoints ({order}, {normalised}resized to {edge}, cropped to {crop['height']}x{crop['width']})"
