"""Methods that tools of Hugging Face (Trainer, pipelines, Accelerator, peft) call on a model besides `forward`.

Names, arguments and meanings are those of transformers' PreTrainedModel. What makes no sense for these models is an
error that says what to do in its place.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from torch import nn

from mobilevit_fast.models.block import MobileViTLayer

_CHECKPOINT_OPTIONS = {"preserve_rng_state": True, "offload": False}
"""How the blocks are checkpointed: with the state of random numbers, and with stored tensors where they are."""


class HuggingFaceInterface(nn.Module):
    """The part of transformers' PreTrainedModel that its tools rely on, without files and configuration."""

    base_model_prefix = "mobilevit"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["MobileViTLayer"]
    _keys_to_ignore_on_save: ClassVar[set[str]] = set()
    _tied_weights_keys: ClassVar[list[str] | None] = None

    name_or_path: str
    model_tags: list[str] | None

    @property
    def base_model(self) -> nn.Module:
        """The backbone, which is the model itself where it has no head."""
        return getattr(self, self.base_model_prefix, self)

    @classmethod
    def can_generate(cls) -> bool:
        """False: these models make no text."""
        return False

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of elements of all parameters, or of those that require a gradient.

        With `exclude_embeddings` without those of `nn.Embedding` modules, of which these models have none.
        """
        left_out = set()
        if exclude_embeddings:
            left_out = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        return sum(
            p.numel() for p in self.parameters() if (p.requires_grad or not only_trainable) and id(p) not in left_out
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of all parameters, and of buffers."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return any(m.gradient_checkpointing for m in self.modules() if isinstance(m, MobileViTLayer))

    @property
    def is_activation_checkpointing(self) -> bool:
        """The same under transformers' newer name."""
        return self.is_gradient_checkpointing

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, every_n_layers: int = 1, **options: Any
    ) -> None:
        """In training mode, compute the MobileViT blocks a second time in the backward pass instead of storing them.

        Args:
            gradient_checkpointing_kwargs: options of `torch.utils.checkpoint`. `use_reentrant` makes no difference:
                gradients are the same, and the blocks always run without it.
            every_n_layers: only the first of so many blocks.
            **options: `offload`, which is refused unless it is False.

        Raises:
            ValueError: an option that blocks do not run with.
        """
        for name, value in {**(gradient_checkpointing_kwargs or {}), **options}.items():
            if name != "use_reentrant" and (name not in _CHECKPOINT_OPTIONS or value != _CHECKPOINT_OPTIONS[name]):
                taken = ", ".join(f"{key}={one}" for key, one in _CHECKPOINT_OPTIONS.items())
                raise ValueError(f"gradient_checkpointing_enable: expected {taken}, got {name}={value!r}")
        if not isinstance(every_n_layers, int) or every_n_layers < 1:
            raise ValueError(f"every_n_layers: expected an integer of at least 1, got {every_n_layers!r}")
        for number, block in enumerate(self._blocks()):
            block.gradient_checkpointing = number % every_n_layers == 0

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """The same under transformers' newer name."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload=offload)

    def gradient_checkpointing_disable(self) -> None:
        """Store everything that the backward pass needs, the default."""
        for block in self._blocks():
            block.gradient_checkpointing = False

    def activation_checkpointing_disable(self) -> None:
        """The same under transformers' newer name."""
        self.gradient_checkpointing_disable()

    def _blocks(self) -> list[MobileViTLayer]:
        return [module for module in self.modules() if isinstance(module, MobileViTLayer)]

    def enable_input_require_grads(self) -> None:
        """Nothing: it is for embeddings of tokens, and gradient checkpointing works without it here."""

    def disable_input_require_grads(self) -> None:
        """Nothing, like its counterpart."""

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: no two parameters are one."""

    def get_input_embeddings(self) -> NoReturn:
        """Raise NotImplementedError, as transformers' models of images do."""
        raise NotImplementedError(f"{type(self).__name__} has no embeddings of tokens")

    def get_output_embeddings(self) -> None:
        """None, as for all models that make no text."""

    def add_model_tags(self, tags: str | list[str]) -> None:
        """Keep words for a model card in `model_tags`."""
        kept = list(self.model_tags or [])
        for tag in [tags] if isinstance(tags, str) else tags:
            if tag not in kept:
                kept.append(tag)
        self.model_tags = kept

    def push_to_hub(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise NotImplementedError that says how to upload a model."""
        raise NotImplementedError(
            f"{type(self).__name__}.push_to_hub: expected model.save_pretrained(folder) and then "
            "huggingface_hub.HfApi().upload_folder(folder_path=folder, repo_id=...)"
        )

    def add_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise NotImplementedError that says how to get adapters."""
        raise NotImplementedError(
            f"{type(self).__name__}.add_adapter: expected peft.get_peft_model(model, config), which takes these models"
        )
