"""Writing checkpoints: everything is made in memory first, then the files take their places together."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mobilevit_fast.checkpoints.errors import CheckpointError
from mobilevit_fast.checkpoints.infer import ARCHITECTURES
from mobilevit_fast.checkpoints.names import from_huggingface
from mobilevit_fast.checkpoints.safetensors_file import CONFIG_KEY
from mobilevit_fast.checkpoints.sources import CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_FILES
from mobilevit_fast.checkpoints.tensors import check_tensor
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.files import user_path, write_together

if TYPE_CHECKING:
    from mobilevit_fast.images import MobileViTImageProcessor


def write_checkpoint(
    model: nn.Module,
    folder: str | os.PathLike[str],
    naming: str = "huggingface",
    processor: "MobileViTImageProcessor | None" = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write model.safetensors and config.json: a process that is killed leaves all files of a save or none.

    That is what this package reads from then on, whoever wrote what was there before. For other libraries,
    model.safetensors may then be missing until the next save into the folder, and is of the same save as the other
    files wherever it is there (`files.write_together`). It holds the configuration too, for whoever takes it alone.
    Threads and processes may write into one folder; the files of one of them stay.

    Args:
        model: a MobileViT of this package or of transformers, accelerated or not, on any device.
        folder: made when it does not exist; files of these names are replaced.
        naming: "huggingface", which transformers reads too; "cvnets" or "timm" for the weights' names of these
            with the same config.json, which this package reads.
        processor: settings for images to write along with them, as preprocessor_config.json.
        state_dict: weights to write in place of the model's own, under the names that these have.

    Raises:
        CheckpointError: the model has no MobileViT configuration, the naming has no names for it, a tensor cannot be
            written, or the folder is a file. Nothing was written.
        OSError: the files cannot be written.
    """
    contents = checkpoint_contents(model, naming, state_dict)
    if processor is not None:
        contents[processor.file_name] = processor.to_json_string().encode()
    path = user_path(folder)
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: expected a folder to write to, got a file")
    path.mkdir(parents=True, exist_ok=True)
    write_together(path, contents, rivals=WEIGHTS_FILES)


def checkpoint_contents(
    model: nn.Module, naming: str = "huggingface", state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, bytes]:
    """The files of a checkpoint by name; arguments and errors as in `write_checkpoint`."""
    config = _config_to_write(model).to_json_string()
    state_dict = from_huggingface(model.state_dict() if state_dict is None else state_dict, naming)
    for name, tensor in state_dict.items():
        check_tensor(name, tensor)
    # Copies on the CPU: the format takes neither shared nor strided storage.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()
    }
    # Through memory: save_file makes files that only their owner can read.
    return {
        WEIGHTS_FILE: save(tensors, metadata={"format": "pt", CONFIG_KEY: config}),
        CONFIG_FILE: config.encode(),
    }


def _config_to_write(model: nn.Module) -> MobileViTConfig:
    known = set(ARCHITECTURES.values())
    # Subclasses, and classes that stand in for one, are saved as what they stand for.
    architecture = next((cls.__name__ for cls in type(model).__mro__ if cls.__name__ in known), None)
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    if architecture is None or to_dict is None:
        raise CheckpointError(
            f"expected a {', '.join(sorted(known))} with a config to write, got {type(model).__name__}"
        )
    result = MobileViTConfig.from_dict(to_dict())
    result.architectures = [architecture]
    result.dtype = next(model.parameters()).dtype
    return result
