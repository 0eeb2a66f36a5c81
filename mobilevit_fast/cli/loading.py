"""Models and their image processors from what the user named, with a word on what was assumed of them."""

from typing import Any

import torch
import typer

from mobilevit_fast.checkpoints import Checkpoint
from mobilevit_fast.cli.console import note, usage_error
from mobilevit_fast.engine import Engine, loading
from mobilevit_fast.engine.loading import Loaded
from mobilevit_fast.images import MobileViTImageProcessor


def parse_dtype(name: str) -> torch.dtype:
    """A dtype by name, or exit status 2."""
    try:
        return loading.dtype_of(name)
    except ValueError as error:
        raise usage_error(f"--dtype: {error}") from error


def parse_device(name: str | None) -> torch.device:
    """A device of this machine by name, by default the GPU where there is one; or exit status 2."""
    try:
        return loading.device_of(name)
    except ValueError as error:
        raise usage_error(f"--device: {error}") from error


def announce_default(context: typer.Context) -> None:
    """Say that no model was named and the one of the package answers, which knows digits alone."""
    given = context.get_parameter_source("model")
    if given is not None and given.name == "DEFAULT":
        note("without --model the answers are those of the package's own small model of handwritten digits")


def load(
    source: str, task: str | None, *, processor: str | None, device: torch.device, dtype: torch.dtype, accelerated: bool
) -> Loaded:
    """`mobilevit_fast.engine.loading.load`, which says on stderr what it assumed."""
    loaded = loading.load(source, task, processor=processor, device=device, dtype=dtype, accelerated=accelerated)
    _announce(loaded.assumed)
    return loaded


def engine_of(loaded: Loaded, batch_size: int | None, decode_threads: int | None, **options: Any) -> Engine:
    """An engine for what was loaded, or exit status 2 where an option does not go with it."""
    sizes = None if batch_size is None else (batch_size,)
    try:
        return Engine(loaded.model, loaded.processor, sizes, decode_threads, **options)
    except ValueError as error:  # such as an output that the model has not
        raise usage_error(str(error)) from error


def find_processor(source: str, checkpoint: Checkpoint, named: str | None) -> MobileViTImageProcessor:
    """The image processor of a checkpoint; said on stderr where its settings had to be assumed."""
    found = loading.find_processor(source, checkpoint, named)
    _announce(found.assumed)
    return found.processor


def _announce(assumed: str | None) -> None:
    if assumed is not None:
        note(f"{assumed}; --processor FOLDER takes the settings of another")
