"""Models and their image processors from what the user named."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Resampling

from mobilevit_fast.accelerate import accelerate
from mobilevit_fast.checkpoints import Checkpoint, CheckpointError, build_model, read_checkpoint
from mobilevit_fast.checkpoints.sources import CONFIG_FILE, read_json
from mobilevit_fast.cli.console import note, usage_error
from mobilevit_fast.files import user_path
from mobilevit_fast.image_processing import PREPROCESSOR_CONFIG, MobileViTImageProcessor
from mobilevit_fast.limits import shortened
from mobilevit_fast.models import MobileViTPreTrainedModel

DIGITS = "digits"
"""The name of the checkpoint that comes with the package."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DEVICES = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class Loaded:
    """A model ready to run, with the processor for its images."""

    model: MobileViTPreTrainedModel
    processor: MobileViTImageProcessor


def parse_dtype(name: str) -> torch.dtype:
    """A dtype by name, or exit status 2."""
    if name not in DTYPES:
        raise usage_error(f"--dtype: expected {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def parse_device(name: str | None) -> torch.device:
    """A device of this machine by name, by default the GPU where there is one; or exit status 2."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise usage_error(f"--device: expected {', '.join(_DEVICES)} or such as cuda:1, got {name!r}") from error
    if device.type not in _DEVICES:
        raise usage_error(f"--device: expected {', '.join(_DEVICES)} or such as cuda:1, got {name!r}")
    module = torch.get_device_module(device.type)
    count = module.device_count() if module.is_available() else 0
    if device.type != "cpu" and (device.index or 0) >= count:
        raise usage_error(
            f"--device: expected a device of this machine, which has {count} of {device.type}, got {name!r}"
        )
    return device


def read_source(source: str) -> Checkpoint:
    """The checkpoint in a folder, a file or on the hub; `digits` is the one in the package."""
    if source == DIGITS:
        from mobilevit_fast.data import digits_checkpoint

        return read_checkpoint(digits_checkpoint())
    return read_checkpoint(source)


def load(
    source: str, task: str, *, processor: str | None, device: torch.device, dtype: torch.dtype, accelerated: bool
) -> Loaded:
    """Read a checkpoint and make its model ready.

    Args:
        source: folder, file, hub id or `digits`.
        task: "classification" or "segmentation".
        processor: folder or hub id to take the image processor from; None looks beside the weights.
        device, dtype: where and in what to compute.
        accelerated: run fused operators.

    Raises:
        CheckpointError, ValueError, OSError: something named does not exist or does not fit.
    """
    checkpoint = read_source(source)
    model = build_model(checkpoint, task).to(device=device, dtype=dtype)
    if model.config.num_labels == 0:
        raise CheckpointError(f"{checkpoint.path}: expected a model with classes, got one with num_labels=0")
    if accelerated:
        accelerate(model)
    return Loaded(model, find_processor(source, checkpoint, processor))


def find_processor(source: str, checkpoint: Checkpoint, named: str | None) -> MobileViTImageProcessor:
    """The image processor of a checkpoint.

    The one that was named, else preprocessor_config.json beside the weights or in the model of the hub, else what the
    family of the checkpoint uses by default, which is said on stderr.
    """
    if named is not None:
        return MobileViTImageProcessor.from_pretrained(named)
    beside = checkpoint.path.parent
    if (beside / PREPROCESSOR_CONFIG).is_file():
        return MobileViTImageProcessor.from_pretrained(beside)
    if source != DIGITS and not user_path(source).exists():
        try:
            return MobileViTImageProcessor.from_pretrained(source)
        except OSError:  # a model without the file, or no connection: the defaults below, which are announced
            pass
    settings, description = _family_settings(checkpoint)
    note(
        f"{source}: no {PREPROCESSOR_CONFIG}, so images are prepared as {description}; "
        "--processor FOLDER takes the settings of another"
    )
    return MobileViTImageProcessor(**settings)


def _family_settings(checkpoint: Checkpoint) -> tuple[dict[str, Any], str]:
    """Settings that a code base uses for its own checkpoints, and how to call them."""
    size = checkpoint.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    crop = {"height": height, "width": width}
    if checkpoint.naming == "timm":
        settings = {**_timm_settings(checkpoint.path.parent / CONFIG_FILE, min(height, width)), "crop_size": crop}
        return (
            settings,
            f"timm's checkpoints (RGB, resized to {settings['size']['shortest_edge']}, cropped to {height})",
        )
    # Apple's checkpoints were trained on images as OpenCV reads them: BGR in [0, 1], not normalised.
    settings = {
        "size": {"shortest_edge": min(height, width) + 32},
        "crop_size": crop,
        "resample": Resampling.BILINEAR,
        "do_flip_channel_order": True,
        "do_normalize": False,
    }
    description = (
        f"Apple's checkpoints (BGR, not normalised, resized to {min(height, width) + 32}, cropped to {height})"
    )
    return settings, description


def _timm_settings(config: Path, edge: int) -> dict[str, Any]:
    """timm's evaluation settings for MobileViT, replaced by what a config.json of its own says."""
    values = read_json(config).get("pretrained_cfg") if config.is_file() else None
    described: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
    crop, interpolation = described.get("crop_pct", 0.9), described.get("interpolation", "bicubic")
    is_number = isinstance(crop, int | float) and not isinstance(crop, bool)
    if not is_number or not 1 / edge <= crop <= 1:
        raise ValueError(f"{config}: expected crop_pct to be a share of the image, up to 1, got {shortened(crop)}")
    filters = [one.name.lower() for one in Resampling]
    if not isinstance(interpolation, str) or interpolation.lower() not in filters:
        raise ValueError(
            f"{config}: expected interpolation to be one of {', '.join(filters)}, got {shortened(interpolation)}"
        )
    return {
        "size": {"shortest_edge": math.floor(edge / crop)},
        "resample": Resampling[interpolation.upper()],
        "do_normalize": True,
        "image_mean": described.get("mean", (0.0, 0.0, 0.0)),
        "image_std": described.get("std", (1.0, 1.0, 1.0)),
        "do_flip_channel_order": False,
    }
