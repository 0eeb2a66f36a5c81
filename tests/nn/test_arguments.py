"""Arguments that make no module: one ValueError that says what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mobilevit_fast.nn import (
    ASPP,
    ClassifierHead,
    ConvNormAct,
    DepthwiseConv2d,
    DepthwiseSeparableConv2d,
    InvertedResidual,
    MobileViTBlock,
)


class Narrow(InvertedResidual):
    """A user's subclass, which errors name."""

    def __init__(self) -> None:
        super().__init__(-1, 8)


REFUSALS = [
    (lambda: InvertedResidual(0, 8), r"^InvertedResidual\.in_channels: expected an integer of at least 1, got 0$"),
    (
        lambda: InvertedResidual(8, 8.0),
        r"^InvertedResidual\.out_channels: expected an integer of at least 1, got 8\.0$",
    ),
    (lambda: InvertedResidual(8, 8, 3), r"^InvertedResidual\.stride: expected 1 or 2, got 3$"),
    (
        lambda: InvertedResidual(8, 8, expand_ratio=0),
        r"^InvertedResidual\.expand_ratio: expected a number above 0, got 0",
    ),
    (
        lambda: InvertedResidual(8, 8, dilation=0),
        r"^InvertedResidual\.dilation: expected an integer of at least 1, got 0",
    ),
    (
        lambda: InvertedResidual(8, 8, activation="swoosh"),
        r"^InvertedResidual\.activation: expected one of .*silu.*'swoosh'",
    ),
    (lambda: InvertedResidual(8, 8, backend="fast"), "expected a backend among"),
    (
        lambda: InvertedResidual(8, 8, dtype=torch.int8),
        r"^InvertedResidual\.dtype: expected a floating point .*torch\.int8",
    ),
    (lambda: ConvNormAct(8, 8, 2), r"^ConvNormAct\.kernel_size: expected an odd integer of at least 1, got 2$"),
    (lambda: ConvNormAct(8, 8, 3, 0), r"^ConvNormAct\.stride: expected an integer of at least 1 or a pair .*, got 0$"),
    (lambda: ConvNormAct(8, 12, 3, groups=8), r"^ConvNormAct\.groups: expected a divisor of 8 and 12 channels, got 8$"),
    (lambda: ConvNormAct(2**40, 8, 1), r"^ConvNormAct\.in_channels: expected at most 2147483647, got 1099511627776$"),
    (lambda: ConvNormAct(8, 8, 1, bias=1), r"^ConvNormAct\.bias: expected True or False, got 1$"),
    (lambda: MobileViTBlock(8, 18, 1), r"^MobileViTBlock\.hidden_size: expected a multiple of num_heads=4, got 18$"),
    (lambda: MobileViTBlock(8, 16, 0), r"^MobileViTBlock\.num_layers: expected an integer of at least 1, got 0$"),
    (lambda: MobileViTBlock(8, 16, 1, patch_size=(2, 0)), r"^MobileViTBlock\.patch_size: expected an integer .*pair"),
    (
        lambda: MobileViTBlock(8, 16, 1, mlp_ratio=0.01),
        r"^MobileViTBlock\.mlp_ratio: expected at least 1/16, .*got 0\.01",
    ),
    (
        lambda: MobileViTBlock(8, 16, 1, out_channels=12),
        r"^MobileViTBlock\.out_channels: expected in_channels=8 .*got 12$",
    ),
    (lambda: MobileViTBlock(8, 16, 1, dilation=2), r"^MobileViTBlock\.dilation: expected 1 with stride=1, got 2$"),
    (
        lambda: MobileViTBlock(8, 16, 1, dropout=1.5),
        r"^MobileViTBlock\.dropout: expected a probability, 0 to 1, got 1\.5$",
    ),
    (lambda: ASPP(8, 8, ()), r"^ASPP\.atrous_rates: expected one or more integers of at least 1, got \(\)$"),
    (lambda: ASPP(8, 8, (6, -1)), r"^ASPP\.atrous_rates: expected one or more integers of at least 1, got \(6, -1\)$"),
    (lambda: ClassifierHead(8, 16, 0), r"^ClassifierHead\.num_classes: expected an integer of at least 1, got 0$"),
    (
        lambda: DepthwiseSeparableConv2d(0, 4, 3),
        r"^DepthwiseSeparableConv2d\.in_channels: expected an integer .*, got 0$",
    ),
    (
        lambda: DepthwiseSeparableConv2d(4, 4, (3, 0)),
        r"^DepthwiseSeparableConv2d\.kernel_size: expected .*, got \(3, 0\)$",
    ),
    (
        lambda: DepthwiseConv2d(4, 3, padding=-1),
        r"^DepthwiseConv2d\.padding: expected an integer of at least 0 or .*, got -1$",
    ),
    (lambda: DepthwiseConv2d(4, 3, padding="same"), r"^DepthwiseConv2d\.padding: expected an integer .*, got 'same'$"),
    (lambda: Narrow(), r"^Narrow\.in_channels: expected an integer of at least 1, got -1$"),
]


@pytest.mark.parametrize(("make", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_sizes_that_make_no_module(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
