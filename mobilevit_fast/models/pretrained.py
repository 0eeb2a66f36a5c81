"""What every model has besides `forward`: configuration, fresh weights, files, gradient checkpointing."""

import os
from typing import Any, Self

import torch
from torch import nn

from mobilevit_fast.checkpoints import load_pretrained, write_checkpoint
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.config.size import check_size
from mobilevit_fast.models.block import MobileViTLayer
from mobilevit_fast.models.layers import initialize_weights


class MobileViTPreTrainedModel(nn.Module):
    """Base of the models.

    Args:
        config: checked once more here, because its attributes may have changed since it was made.

    Raises:
        ValueError: a field does not fit, or the model would be larger than `mobilevit_fast.limits` allow.
    """

    config_class = MobileViTConfig
    base_model_prefix = "mobilevit"
    main_input_name = "pixel_values"

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__()
        if not isinstance(config, MobileViTConfig):
            raise TypeError(f"{type(self).__name__}: expected a MobileViTConfig, got {type(config).__name__}")
        config.validate()
        check_size(config)
        self.config = config

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first parameter."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Number of elements of all parameters, or of those that require a gradient."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return any(m.gradient_checkpointing for m in self.modules() if isinstance(m, MobileViTLayer))

    def gradient_checkpointing_enable(self) -> None:
        """In training mode, compute the MobileViT blocks a second time in the backward pass instead of storing them."""
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Store everything that the backward pass needs, the default."""
        self._set_gradient_checkpointing(False)

    def _set_gradient_checkpointing(self, enabled: bool) -> None:
        for module in self.modules():
            if isinstance(module, MobileViTLayer):
                module.gradient_checkpointing = enabled

    def initialize_weights(self, module: nn.Module) -> None:
        """Give `module` and everything in it fresh weights, see `mobilevit_fast.models.layers.initialize_weights`."""
        initialize_weights(module, self.config.initializer_range)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        config: MobileViTConfig | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        mmap: bool = False,
        strict: bool = True,
        dtype: torch.dtype | None = None,
        **config_overrides: Any,
    ) -> Self:
        """A model with the weights of a folder, a file or a model of the Hugging Face hub, in evaluation mode.

        Args:
            folder_or_id: a path, or an id such as "apple/mobilevit-small" where no such path exists.
            config: use this configuration instead of the checkpoint's.
            revision: branch, tag or commit on the hub.
            token: the hub's access token, or True for the stored one.
            cache_dir: folder for downloads instead of the hub's own.
            local_files_only: use what was downloaded before, without a connection.
            mmap: map the weights file instead of copying it into memory; then nobody may write to it.
            strict: whether weights that are missing or left over are an error.
            dtype: floating point type of the model; None keeps the checkpoint's, of several the widest (float64 only
                where most numbers have it), to which the others are cast.
            **config_overrides: fields of the configuration to replace.

        Raises:
            mobilevit_fast.checkpoints.CheckpointError: there is no such checkpoint, or it does not fit.
            TypeError: an option that is neither listed here nor a field of the configuration.
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
            dtype=dtype,
            **config_overrides,
        )

    def save_pretrained(self, folder: str | os.PathLike[str], *, naming: str = "huggingface") -> None:
        """Write weights and configuration into `folder`.

        Args:
            folder: made if it does not exist.
            naming: names of the tensors in the file: "huggingface", "cvnets" or "timm".
        """
        write_checkpoint(self, folder, naming=naming)
