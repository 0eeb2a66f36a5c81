"""Base class of the models: configuration, fresh weights, files."""

import os
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from mobilevit_fast.checkpoints import load_pretrained, write_checkpoint
from mobilevit_fast.checkpoints.options import check_writing
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.config.size import check_size
from mobilevit_fast.models.interface import HuggingFaceInterface
from mobilevit_fast.models.layers import initialize_weights


class MobileViTPreTrainedModel(HuggingFaceInterface):
    """Base of the models.

    Args:
        config: checked once more here, because its attributes may have changed since it was made. One of transformers'
            is converted.

    Raises:
        ValueError: a field does not fit, or the model would be larger than `mobilevit_fast.limits` allow.
    """

    config_class = MobileViTConfig

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__()
        config = MobileViTConfig.converted(config, type(self).__name__)
        config.validate()
        check_size(config)
        self.config = config
        self.name_or_path = ""
        self.model_tags = None

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first parameter."""
        return next(self.parameters()).dtype

    def post_init(self) -> None:
        """Fresh weights for all of the model, which the constructor of a subclass asks for at its end."""
        self.initialize_weights(self)

    def initialize_weights(self, module: nn.Module) -> None:
        """Give `module` and everything in it fresh weights, see `mobilevit_fast.models.layers.initialize_weights`."""
        initialize_weights(module, self.config.initializer_range)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        config: MobileViTConfig | str | os.PathLike[str] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        mmap: bool = False,
        strict: bool = True,
        ignore_mismatched_sizes: bool = False,
        allow_unused: bool = False,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        **config_overrides: Any,
    ) -> Self:
        """A model with the weights of a folder, a file or a model of the Hugging Face hub, in evaluation mode.

        Args:
            folder_or_id: a path, or an id such as "apple/mobilevit-small" where no such path exists.
            config: use this configuration instead of the checkpoint's, or the one of that file, folder or model.
            revision: branch, tag or commit on the hub.
            token: the hub's access token, or True for the stored one.
            cache_dir: folder for downloads instead of the hub's own.
            local_files_only: use what was downloaded before, without a connection.
            mmap: map the weights file instead of copying it into memory; then nobody may write to it.
            strict: whether weights that are missing or left over are an error.
            ignore_mismatched_sizes: keep fresh weights where those of the checkpoint have another shape, as for a
                classifier of other classes, and log that.
            allow_unused: leave out weights that the model has no place for, and log their names.
            dtype: floating point type of the model, or its name; None keeps the checkpoint's, of several the widest
                (float64 only where most elements have it), to which the others are cast; "auto" takes the
                configuration's, where it names one.
            torch_dtype: the older name of `dtype`.
            **config_overrides: fields of the configuration to replace; arguments of the class. Further options of
                transformers are taken where they ask for nothing else than what is done here.

        Raises:
            mobilevit_fast.checkpoints.CheckpointError: there is no such checkpoint, or it does not fit.
            TypeError: an option that is neither listed here nor a field of the configuration, or one of transformers'
                that is not done here; the message names its substitute.
        """
        return load_pretrained(
            cls,
            folder_or_id,
            config=config,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            mmap=mmap,
            strict=strict,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            allow_unused=allow_unused,
            dtype=dtype,
            torch_dtype=torch_dtype,
            **config_overrides,
        )

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        naming: str = "huggingface",
        **options: Any,
    ) -> None:
        """Write weights and configuration into `folder`.

        Args:
            folder: made if it does not exist.
            is_main_process: whether this process writes; of several that have the model, one should.
            state_dict: weights to write in place of the model's own, under the names that these have.
            naming: names of the tensors in the file: "huggingface", "cvnets" or "timm".
            **options: further ones of transformers, where they ask for nothing else than what is done here.

        Raises:
            mobilevit_fast.checkpoints.CheckpointError: the naming has no names for the model, or a tensor cannot be
                written.
            TypeError: an option that is not done here; the message names its substitute.
        """
        check_writing(options)
        if is_main_process:
            write_checkpoint(self, folder, naming=naming, state_dict=state_dict)
