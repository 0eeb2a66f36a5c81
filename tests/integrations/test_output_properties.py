"""Results that leave an accelerated model have the original's layout, type, device and state of autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from testing.pairs import tiny_config
from testing.peers import import_transformers
from tests.integrations import zoo


class Properties(NamedTuple):
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


def _leaves(output: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(output, dict) or hasattr(output, "items"):
        for name, value in output.items():
            yield from _leaves(value, f"{path}.{name}")
    elif isinstance(output, list | tuple):
        for i, value in enumerate(output):
            yield from _leaves(value, f"{path}.{i}")
    else:
        yield path, output


def properties(output: Any) -> list[Any]:
    leaves = list(_leaves(output))
    ids = [id(leaf) for _, leaf in leaves]
    return [type(output)] + [
        Properties(
            path,
            leaf.shape,
            leaf.stride(),
            leaf.storage_offset(),
            leaf.dtype,
            leaf.device,
            leaf.requires_grad,
            leaf.is_inference(),
            ids.index(id(leaf)),
        )
        if isinstance(leaf, Tensor)
        else leaf
        for path, leaf in leaves
    ]


def _dilated_timm() -> nn.Module:
    return zoo.timm(features_only=True, output_stride=16)


MODELS: dict[str, Callable[[], nn.Module]] = {
    **zoo.SMALL,
    "native-features": lambda: _without_expansion(zoo.native_backbone),
    "transformers-backbone": lambda: _transformers_model(),
    "transformers-features": lambda: _transformers_model(expand_output=False),
    "timm-features": lambda: zoo.timm(features_only=True),
    "timm-two-features": lambda: zoo.timm(features_only=True, out_indices=(1, 3)),
    "timm-hooked": lambda: zoo.timm(features_only=True, feature_cls="hook"),
    "timm-getter": lambda: zoo.timm(features_only=True, feature_cls="getter"),
    "timm-dict": lambda: zoo.timm(features_only=True, feature_cls="dict"),
    "timm-fx": lambda: zoo.timm(features_only=True, feature_cls="fx"),
    "timm-no-classes": lambda: zoo.timm(num_classes=0),
    "timm-no-pooling": lambda: zoo.timm(num_classes=0, global_pool=""),
}


def _without_expansion(build: Callable[..., nn.Module]) -> nn.Module:
    from mobilevit_fast.models import MobileViTModel

    return MobileViTModel(tiny_config(), expand_output=False).eval()


def _transformers_model(**arguments: Any) -> nn.Module:
    from testing.pairs import theirs_for

    return theirs_for("MobileViTModel", tiny_config(), **arguments)


def channels_last(x: Any) -> Any:
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
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def _call(model: nn.Module, x: Tensor, mode: str = "no_grad", **arguments: Any) -> Any:
    with MODES[mode]():
        return model(x, **arguments)


def _pair(name: str, **arguments: Any) -> tuple[nn.Module, nn.Module]:
    plain = MODELS[name]()
    return plain, mvf.accelerate(copy.deepcopy(plain), **arguments)


@pytest.mark.parametrize("weights", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", MODELS)
def test_of_every_output(name: str, weights: str) -> None:
    plain, model = _pair(name)
    if weights == "channels_last":
        plain, model = channels_last(plain), channels_last(model)
    arguments = {} if name.startswith("timm") else {"output_hidden_states": True}
    for layout, images in IMAGES.items():
        x = images()
        expected = properties(_call(plain, x, **arguments))
        assert properties(_call(model, x, **arguments)) == expected, layout
    assert mvf.report(model).fused


@pytest.mark.parametrize("name", ["native", "transformers", "timm-features"])
@pytest.mark.parametrize("mode", MODES)
def test_in_each_mode_after_another(name: str, mode: str) -> None:
    plain, model = _pair(name)
    other = next(m for m in MODES if m != mode)
    _call(model, zoo.images(2), other)
    assert properties(_call(model, zoo.images(2), mode)) == properties(_call(plain, zoo.images(2), mode))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["native-backbone", "transformers", "timm-features"])
def test_with_gradients_enabled(name: str, frozen: bool) -> None:
    plain, model = _pair(name)
    for m in (plain, model):
        m.requires_grad_(not frozen)
    x = channels_last(zoo.images(2))
    assert properties(model(x)) == properties(plain(x))
