"""Options of transformers' `from_pretrained` and `save_pretrained`: taken as it means them, or what to use is said."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from mobilevit_fast.limits import shortened


class _Option(NamedTuple):
    """Which values of an option ask for what happens anyway, and what to use in place of others."""

    accepts: Callable[[Any], bool]
    substitute: str = ""


def _anything(value: Any) -> bool:
    return True


def _nothing(value: Any) -> bool:
    return value is None or value is False or value == ""


def _not_false(value: Any) -> bool:
    return value is not False


# No code of a file ever runs, pickles and safetensors are both read, and attention has one implementation.
_READING = {
    **dict.fromkeys(("low_cpu_mem_usage", "use_safetensors", "disable_mmap"), _Option(_anything)),
    **dict.fromkeys(("trust_remote_code", "attn_implementation", "resume_download"), _Option(_anything)),
    "weights_only": _Option(_not_false, "True: pickles that need code are not read"),
    "device_map": _Option(_nothing, "the model's .to(device) afterwards"),
    "quantization_config": _Option(_nothing, "quantisation of the loaded model"),
    "state_dict": _Option(_nothing, "mobilevit_fast.checkpoints.load_weights(model, state_dict)"),
    "output_loading_info": _Option(_nothing, "strict=False, which logs what was missing or left over"),
    "force_download": _Option(_nothing, "huggingface_hub.snapshot_download(id, force_download=True) before"),
    "proxies": _Option(_nothing, "the environment variable HTTPS_PROXY"),
    "subfolder": _Option(_nothing, "the path of that folder, after huggingface_hub.snapshot_download(id)"),
    "variant": _Option(_nothing, "the path of that weights file"),
    "use_auth_token": _Option(_nothing, "token"),
}

# A model is one safetensors file, which is written whole or not at all.
_WRITING = {
    **dict.fromkeys(("save_function", "max_shard_size", "token"), _Option(_anything)),
    **dict.fromkeys(("save_original_format", "save_peft_format"), _Option(_anything)),
    "safe_serialization": _Option(_not_false, "True, or torch.save(model.state_dict(), path) for a pickle"),
    "push_to_hub": _Option(_nothing, "huggingface_hub.HfApi().upload_folder(folder_path=folder, repo_id=...) after it"),
    "variant": _Option(_nothing, "a folder of its own"),
    "distributed_checkpoint": _Option(_nothing, "the state dict of the whole model as state_dict"),
}


def check_reading(options: Mapping[str, Any]) -> None:
    """See that options of `from_pretrained` that are no parameters of ours ask for nothing that is not done here.

    Raises:
        TypeError: one that transformers does not know either, or one with a substitute, which the message names.
    """
    unknown = sorted(set(options) - _READING.keys())
    if unknown:
        raise TypeError(f"from_pretrained: expected options or fields of MobileViTConfig, got {', '.join(unknown)}")
    _check(options, _READING, "from_pretrained")


def check_writing(options: Mapping[str, Any]) -> None:
    """The same for `save_pretrained`."""
    unknown = sorted(set(options) - _WRITING.keys())
    if unknown:
        raise TypeError(f"save_pretrained: expected options of transformers, got {', '.join(unknown)}")
    _check(options, _WRITING, "save_pretrained")


def _check(options: Mapping[str, Any], known: Mapping[str, _Option], caller: str) -> None:
    for name, value in options.items():
        if not known[name].accepts(value):
            raise TypeError(f"{caller}: {name}={shortened(value)} is not done here; use {known[name].substitute}")


def floating_dtype(dtype: Any, torch_dtype: Any, stored: torch.dtype | None) -> torch.dtype | None:
    """The type that `dtype` asks for, or `torch_dtype`, its older name: a type, its name, or "auto".

    Args:
        dtype: None where it was not given.
        torch_dtype: counts where `dtype` was not given.
        stored: what the checkpoint's configuration says, which "auto" takes.

    Returns:
        None for the type of the weights.

    Raises:
        TypeError: no floating point type.
    """
    asked = torch_dtype if dtype is None else dtype
    if isinstance(asked, str) and asked == "auto":
        return stored if stored is not None and stored.is_floating_point else None
    found = getattr(torch, asked.removeprefix("torch."), None) if isinstance(asked, str) else asked
    if asked is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise TypeError(
            f'from_pretrained: expected dtype to be a floating point torch.dtype, its name or "auto", got {asked!r}'
        )
    return found
