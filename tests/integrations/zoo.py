"""Small models of every library that can be accelerated, with weights that let a signal through."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTForSemanticSegmentation, MobileViTModel
from testing.pairs import CLASSIFICATION, SEGMENTATION, give_real_signal, theirs_for, tiny_config
from testing.peers import import_timm


def _ready(model: nn.Module) -> nn.Module:
    give_real_signal(model)
    return model.eval()


def native(config: MobileViTConfig) -> nn.Module:
    return _ready(MobileViTForImageClassification(config))


def native_segmentation(config: MobileViTConfig) -> nn.Module:
    return _ready(MobileViTForSemanticSegmentation(config))


def native_backbone(config: MobileViTConfig) -> nn.Module:
    return _ready(MobileViTModel(config))


def transformers(config: MobileViTConfig) -> nn.Module:
    return _ready(theirs_for(CLASSIFICATION, config))


def transformers_segmentation(config: MobileViTConfig) -> nn.Module:
    return _ready(theirs_for(SEGMENTATION, config))


def timm(name: str = "mobilevit_xxs", **arguments: Any) -> nn.Module:
    return _ready(import_timm().create_model(name, **arguments))


_timm_small = functools.cache(lambda: timm(num_classes=5))


def timm_small() -> nn.Module:
    """A copy, which takes half the time of a new one."""
    return copy.deepcopy(_timm_small())


SMALL: dict[str, Callable[[], nn.Module]] = {
    "native": lambda: native(tiny_config()),
    "native-segmentation": lambda: native_segmentation(tiny_config(output_stride=16)),
    "native-backbone": lambda: native_backbone(tiny_config()),
    "transformers": lambda: transformers(tiny_config()),
    "transformers-segmentation": lambda: transformers_segmentation(tiny_config(output_stride=8)),
    "timm": timm_small,
}
"""One small model for each library and task."""


def images(batch: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def first_output(output: Any) -> Tensor:
    """The logits (or features) of a model's output, whatever the library."""
    if isinstance(output, Tensor):
        return output
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return first_output(model(x))


def run_often(model: nn.Module, x: Tensor) -> Tensor:
    """The result of the third call, which is a recorded one where it can be."""
    for _ in range(2):
        run(model, x)
    return run(model, x)
