"""Properties of results besides their values, and models and images to compare them for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from mobilevit_fast.models import MobileViTModel
from testing.pairs import theirs_for, tiny_config
from tests.integrations import zoo


class Properties(NamedTuple):
    """Everything about a tensor but its numbers."""

    path: str
    shape: torch.Size
    strides: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool
    is_inference: bool
    same_as: int
    """Number of the first result that is the same object."""


def properties(output: Any) -> list[Any]:
    """Those of every tensor in a result, and what holds them."""
    leaves = list(_leaves(output))
    ids = [id(leaf) for _, leaf in leaves]
    return [type(output), *(_of(path, leaf, ids.index(id(leaf))) for path, leaf in leaves)]


def _of(path: str, leaf: Any, same_as: int) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    memory = leaf.stride(), leaf.storage_offset(), leaf.dtype, leaf.device
    return Properties(path, leaf.shape, *memory, leaf.requires_grad, leaf.is_inference(), same_as)


def _leaves(output: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(output, "items"):
        for name, value in output.items():
            yield from _leaves(value, f"{path}.{name}")
    elif isinstance(output, list | tuple):
        for i, value in enumerate(output):
            yield from _leaves(value, f"{path}.{i}")
    else:
        yield path, output


MODELS: dict[str, Callable[[], nn.Module]] = {
    **zoo.SMALL,
    "native-features": lambda: MobileViTModel(tiny_config(), expand_output=False).eval(),
    "transformers-backbone": lambda: theirs_for("MobileViTModel", tiny_config()),
    "transformers-features": lambda: theirs_for("MobileViTModel", tiny_config(), expand_output=False),
    "timm-features": lambda: zoo.timm(features_only=True),
    "timm-two-features": lambda: zoo.timm(features_only=True, out_indices=(1, 3)),
    "timm-hooked": lambda: zoo.timm(features_only=True, feature_cls="hook"),
    "timm-getter": lambda: zoo.timm(features_only=True, feature_cls="getter"),
    "timm-dict": lambda: zoo.timm(features_only=True, feature_cls="dict"),
    "timm-fx": lambda: zoo.timm(features_only=True, feature_cls="fx"),
    "timm-no-classes": lambda: zoo.timm(num_classes=0),
    "timm-no-pooling": lambda: zoo.timm(num_classes=0, global_pool=""),
}


def channels_last(x: Any) -> Any:
    """An image or a model."""
    return x.to(memory_format=torch.channels_last)


IMAGES: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: zoo.images(2),
    "channels_last": lambda: channels_last(zoo.images(2)),
    "one": lambda: zoo.images(1),
    "one channels_last": lambda: channels_last(zoo.images(1)),
    "odd": lambda: zoo.images(2, 75, 50),
    "odd channels_last": lambda: channels_last(zoo.images(2, 75, 50)),
    "tiny": lambda: zoo.images(2, 32, 32),
    "tiny channels_last": lambda: channels_last(zoo.images(2, 32, 32)),
    "sliced": lambda: zoo.images(2, 80, 64)[:, :, 8:72],
    "sliced channels_last": lambda: channels_last(zoo.images(2, 80, 64))[:, :, 8:72],
    "expanded": lambda: zoo.images(1).expand(2, -1, -1, -1),
    "transposed": lambda: zoo.images(2).transpose(2, 3),
}


def pair(name: str, weights: str = "contiguous", **arguments: Any) -> tuple[nn.Module, nn.Module]:
    """A plain model, and one like it that is accelerated; both then have weights of this layout."""
    plain, model = MODELS[name](), mvf.accelerate(MODELS[name](), **arguments)
    return (channels_last(plain), channels_last(model)) if weights == "channels_last" else (plain, model)
