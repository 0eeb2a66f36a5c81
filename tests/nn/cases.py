"""Modules of mvf.nn made by their constructors, on small sizes, with an input each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mobilevit_fast.nn import ASPP, ClassifierHead, ConvNormAct, InvertedResidual, MobileViTBlock
from testing.pairs import give_real_signal


class Case(NamedTuple):
    """How to make a module, the shape that it takes and the one that it gives, and its regions."""

    make: Callable[..., nn.Module]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    kinds: tuple[str, ...]

    def ready(self, **arguments: Any) -> nn.Module:
        """In evaluation mode, with weights that let a signal through."""
        module = self.make(**arguments)
        give_real_signal(module)
        return module.eval()

    def input(self, seed: int = 0) -> Tensor:
        return torch.randn(self.takes, generator=torch.Generator().manual_seed(seed))


def _block(**arguments: Any) -> nn.Module:
    return MobileViTBlock(8, 16, 2, num_heads=2, **{"mlp_ratio": 1.5, **arguments})


def _strided_block(**arguments: Any) -> nn.Module:
    return MobileViTBlock(8, 16, 1, out_channels=12, stride=2, expand_ratio=2, dropout=0.0, **arguments)


CASES = {
    "conv": Case(lambda **a: ConvNormAct(8, 12, 3, 2, **a), (2, 8, 9, 7), (2, 12, 5, 4), ("conv2d_bias_act",)),
    "depthwise conv": Case(
        lambda **a: ConvNormAct(8, 8, 5, dilation=2, groups=8, activation="relu", **a),
        (2, 8, 9, 7),
        (2, 8, 9, 7),
        ("conv2d_bias_act",),
    ),
    "pointwise conv": Case(
        lambda **a: ConvNormAct(8, 12, 1, bias=True, use_normalization=False, activation="none", **a),
        (2, 8, 9, 7),
        (2, 12, 9, 7),
        ("conv2d_bias_act",),
    ),
    "inverted residual": Case(
        lambda **a: InvertedResidual(8, 8, expand_ratio=2, dilation=2, **a),
        (2, 8, 9, 7),
        (2, 8, 9, 7),
        ("inverted_residual",),
    ),
    "strided inverted residual": Case(
        lambda **a: InvertedResidual(8, 12, stride=2, expand_ratio=4, **a),
        (2, 8, 9, 7),
        (2, 12, 5, 4),
        ("inverted_residual",),
    ),
    "block": Case(_block, (2, 8, 10, 6), (2, 8, 10, 6), ("mobilevit_block",)),
    "strided block": Case(_strided_block, (2, 8, 15, 12), (2, 12, 8, 6), ("mobilevit_block", "inverted_residual")),
    "aspp": Case(lambda **a: ASPP(8, 6, (1, 2), **a), (2, 8, 9, 7), (2, 6, 9, 7), ("aspp",)),
    "classifier head": Case(lambda **a: ClassifierHead(8, 24, 5, **a), (2, 8, 9, 7), (2, 5), ("classifier_head",)),
}
"""One for each module of mvf.nn and each way to make it."""
