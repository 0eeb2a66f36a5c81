"""Reading checkpoints of three code bases into models."""

import inspect
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from mobilevit_fast.checkpoints.errors import CheckpointError, first_few
from mobilevit_fast.checkpoints.infer import ARCHITECTURES, infer_config, task_of
from mobilevit_fast.checkpoints.loading import load_weights
from mobilevit_fast.checkpoints.names import Naming, detect_naming, is_head, is_known_head, to_huggingface
from mobilevit_fast.checkpoints.options import check_reading, floating_dtype
from mobilevit_fast.checkpoints.sources import Source, locate, read_json
from mobilevit_fast.checkpoints.tensors import read_tensors
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.config.checks import default_id2label, parse_id2label
from mobilevit_fast.files import HubOptions, find, parse_json_object
from mobilevit_fast.limits import shortened

if TYPE_CHECKING:
    from mobilevit_fast.models import MobileViTPreTrainedModel

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=nn.Module)

_READINGS = 30
"""Tries to read the files of one writer while others replace them."""


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint, whichever code base wrote it.

    Attributes:
        state_dict: tensors on the CPU under Hugging Face's names.
        config: from config.json, or inferred from the shapes of the tensors.
        naming: the code base whose names the file uses.
        path: the (first) weights file.
        unused: names of tensors in the file that no MobileViT of this code base has, which `state_dict` lacks. Files
            with Hugging Face's names keep theirs in `state_dict`.
        key: where the file had its state dict, such as "state_dict_ema"; None where it was nothing else.
    """

    state_dict: dict[str, Tensor]
    config: MobileViTConfig
    naming: Naming
    path: Path
    unused: tuple[str, ...] = ()
    key: str | None = None


def read_checkpoint(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    mmap: bool = False,
) -> Checkpoint:
    """Read weights and configuration; of a folder that others write to meanwhile, those of one writer.

    Args:
        source: a folder (model.safetensors, its sharded form, or pytorch_model.bin; beside it config.json of
            transformers or timm if there is one), a single .safetensors, .bin, .pt or .pth file, or a model id
            of the hub.
        revision: branch, tag or commit on the hub.
        token: access token of the hub.
        cache_dir: where downloads are kept.
        local_files_only: use what was downloaded before, without a connection.
        mmap: map the weights instead of copying them into memory. They change, or the process dies, when another
            program rewrites or truncates the file.

    Raises:
        CheckpointError: there is nothing there, it is damaged, or it is no MobileViT.
    """
    return _read_checkpoint(source, HubOptions(revision, token, cache_dir, local_files_only), mmap)


def _read_checkpoint(source: str | os.PathLike[str], hub: HubOptions, mmap: bool) -> Checkpoint:
    for _ in range(_READINGS):
        files = locate(source, hub)
        before = _stamps(files)
        try:
            checkpoint = _read(files, mmap)
        except CheckpointError:
            if _stamps(files) == before and None not in before[: len(files.weights)]:
                raise
        else:
            if _stamps(files) == before:
                return checkpoint
    raise CheckpointError(f"{files.weights[0]}: expected a checkpoint that is not written to all the time")


def _stamps(files: Source) -> list[tuple[int, ...] | None]:
    """Stamps that change when a file is replaced or written to; None where there is no file."""
    return [_stamp(path) for path in (*files.weights, files.config) if path is not None]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = (find(path) or path).stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(files: Source, mmap: bool) -> Checkpoint:
    content = read_tensors(files.weights, mmap=mmap)
    path = files.weights[0]
    try:
        naming = detect_naming(content.tensors)
        unused: list[str] = []
        state_dict = to_huggingface(content.tensors, naming, unused)
        if files.config is not None and find(files.config) is not None:
            config = _read_config(files.config, state_dict)
        elif content.config is not None:
            config = _kept_config(content.config)
        else:
            config = infer_config(state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(state_dict, config, naming, path, tuple(unused), content.key)


def _kept_config(text: str) -> MobileViTConfig:
    """The configuration that this package wrote into a weights file."""
    try:
        return MobileViTConfig.from_dict(parse_json_object(text.encode("utf-8", "replace")))
    except ValueError as error:
        raise CheckpointError(f"the configuration in its metadata: {error}") from error


def _read_config(path: Path, state_dict: Mapping[str, Tensor]) -> MobileViTConfig:
    values = read_json(path)
    model_type, architecture = values.get("model_type"), values.get("architecture")
    try:
        if model_type == MobileViTConfig.model_type:
            return MobileViTConfig.from_dict(values)
        if "model_type" not in values and str(architecture).startswith("mobilevit_"):
            return _complete_from_timm(infer_config(state_dict), values, path)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    raise CheckpointError(
        f"{path}: expected model_type 'mobilevit' or timm's architecture 'mobilevit_*', "
        f"got model_type {shortened(model_type)} and architecture {shortened(architecture)}"
    )


def _complete_from_timm(config: MobileViTConfig, values: Mapping[str, Any], path: Path) -> MobileViTConfig:
    """Add what timm's config.json says about images and labels."""
    described = values.get("pretrained_cfg")
    described = described if isinstance(described, Mapping) else {}
    input_size, labels = described.get("input_size"), values.get("label_names") or described.get("label_names")
    overrides: dict[str, Any] = {}
    if isinstance(input_size, list) and len(input_size) == 3:
        height, width = input_size[1:]
        overrides["image_size"] = height if height == width else [height, width]
    if labels and isinstance(labels, (list, Mapping)):
        # timm writes a mapping where there are gaps between the indices.
        names = parse_id2label(labels if isinstance(labels, Mapping) else dict(enumerate(labels)))
        named = {**default_id2label(config.num_labels), **names}
        if len(named) == config.num_labels and (isinstance(labels, Mapping) or len(names) == len(named)):
            overrides["id2label"] = named
        else:
            logger.warning("%s: %d label_names left out, for %d classes", path, len(names), config.num_labels)
    return MobileViTConfig.from_dict(config.to_dict(), **overrides)


def load_pretrained(
    build: Callable[..., ModelT],
    source: str | os.PathLike[str],
    *,
    config: MobileViTConfig | str | os.PathLike[str] | None = None,
    strict: bool = True,
    ignore_mismatched_sizes: bool = False,
    allow_unused: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    mmap: bool = False,
    dtype: torch.dtype | str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    **options: Any,
) -> ModelT:
    """Build a model, in evaluation mode, with the weights of a checkpoint.

    Args:
        build: makes the model from its configuration; usually a class of `mobilevit_fast.models`.
        source: as in `read_checkpoint`, and so are revision, token, cache_dir, local_files_only and mmap.
        config: replaces the checkpoint's configuration; also a file, folder or hub id that has one.
        strict, ignore_mismatched_sizes, allow_unused: as in `load_weights`.
        dtype, torch_dtype: as in `load_weights`, or the name of a type, or "auto": the configuration's.
        **options: fields to replace in the configuration, such as `num_labels` or `output_stride`; arguments of
            `build`; options of transformers that ask for nothing else than what is done here.

    Raises:
        CheckpointError: the checkpoint cannot be read or does not fit.
        ValueError: a field of the configuration does not fit.
        TypeError: there is no such field or option, or one that is not done here.
    """
    fields, parameters = MobileViTConfig.field_names(), inspect.signature(build).parameters
    overrides = {name: options.pop(name) for name in fields & options.keys()}
    arguments = {name: options.pop(name) for name in set(parameters) & options.keys() - {"config"}}
    check_reading(options)
    floating_dtype(dtype, torch_dtype, None)  # a wrong one is said before the checkpoint is read
    hub = HubOptions(revision, token, cache_dir, local_files_only)
    checkpoint = _read_checkpoint(source, hub, mmap)
    if isinstance(config, (str, os.PathLike)):
        config = MobileViTConfig.from_pretrained(
            config, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
    config = checkpoint.config if config is None else MobileViTConfig.converted(config, "from_pretrained")
    if overrides:
        config = MobileViTConfig.from_dict(config.to_dict(), **overrides)
    model = build(config, **arguments)
    load_weights(
        model,
        checkpoint.state_dict,
        strict=strict,
        ignore_mismatched_sizes=ignore_mismatched_sizes,
        allow_unused=allow_unused,
        unused=checkpoint.unused,
        source=str(checkpoint.path),
        dtype=floating_dtype(dtype, torch_dtype, config.dtype),
    )
    model.name_or_path = os.fspath(source)  # type: ignore[assignment]  # what peft keeps of a model's origin
    return model.eval()


_MODELS: dict[str, Callable[..., "MobileViTPreTrainedModel"]] = {}


def register_models(*classes: "type[MobileViTPreTrainedModel]") -> None:
    """Have :func:`build_model` make models of these classes, which the table of architectures names."""
    _MODELS.update({each.__name__: each for each in classes})


def build_model(
    checkpoint: Checkpoint,
    task: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    allow_unused: bool = False,
) -> "MobileViTPreTrainedModel":
    """The model a checkpoint was made for, in evaluation mode, with its weights.

    Args:
        checkpoint: as `read_checkpoint` returns it. Its tensors become the model's own.
        task: "classification", "segmentation" or "base", which leaves a head out; None takes what the checkpoint is.
        dtype, allow_unused: as in `load_weights`.

    Raises:
        CheckpointError: weights and configuration do not fit each other, there are tensors that the model has no place
            for, or there is no head for the task.
    """
    if task is not None and task not in ARCHITECTURES:
        raise ValueError(f"expected task {', '.join(ARCHITECTURES)} or None, got {task!r}")
    found = task_of(checkpoint.state_dict)
    if found == "base" and ARCHITECTURES["classification"] in (checkpoint.config.architectures or []):
        found = "classification"  # saved with num_labels=0
    if task not in (None, "base", found):
        unknown = [name for name in checkpoint.state_dict if is_head(name) and not is_known_head(name)]
        unknown += checkpoint.unused
        beside = f" with unknown tensors ({first_few(unknown, 10)})" if unknown else ""
        raise CheckpointError(f"{checkpoint.path}: expected a model for {task}, got one for {found}{beside}")
    model: MobileViTPreTrainedModel
    try:
        if (task or found) == "base":
            expanded = any("conv_1x1_exp." in name for name in checkpoint.state_dict)
            model = _MODELS[ARCHITECTURES["base"]](checkpoint.config, expand_output=expanded)
        else:
            model = _MODELS[ARCHITECTURES[found]](checkpoint.config)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    load_weights(
        model,
        checkpoint.state_dict,
        allow_unused=allow_unused,
        unused=checkpoint.unused,
        source=str(checkpoint.path),
        dtype=dtype,
    )
    return model.eval()


def load_model(
    source: str | os.PathLike[str],
    task: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    allow_unused: bool = False,
    **arguments: Any,
) -> "MobileViTPreTrainedModel":
    """Load a checkpoint into the class it was made for, in evaluation mode.

    Args:
        source: as in `read_checkpoint`.
        task: as in `build_model`.
        dtype, allow_unused: as in `load_weights`.
        **arguments: revision, token, cache_dir, local_files_only and mmap, as in `read_checkpoint`.

    Raises:
        CheckpointError: the checkpoint cannot be read or has no head for the task.
    """
    return build_model(read_checkpoint(source, **arguments), task, dtype=dtype, allow_unused=allow_unused)
