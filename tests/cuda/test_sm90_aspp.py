"""Atrous spatial pyramid pooling on a GPU of compute capability 9.0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mobilevit_fast import ops
from testing.tolerance import assert_within_twice

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
        reason="needs a GPU of compute capability 9.0",
    ),
]


def make(channels: int, size: tuple[int, int, int], dtype: torch.dtype) -> tuple[Any, ...]:
    """Arguments of the operator on images of (batch, height, width)."""
    torch.manual_seed(channels)

    def weight(*shape: int) -> Tensor:
        return (torch.randn(*shape, device="cuda") * torch.Size(shape[-3:]).numel() ** -0.5).to(dtype)

    def ends(*shape: int) -> tuple[Tensor, Tensor]:
        return 1 + 0.2 * torch.randn(*shape, device="cuda"), 0.3 * torch.randn(*shape, device="cuda")

    batch, height, width = size
    x = torch.randn(batch, height, width, channels, device="cuda").to(dtype).permute(0, 3, 1, 2)
    branches = (weight(256, channels, 1, 1), *ends(256), weight(3, 256, channels, 3, 3), *ends(3, 256))
    pool = (weight(256, channels, 1, 1), *ends(256))
    return x, *branches, *pool, weight(256, 1280, 1, 1), *ends(256), [6, 12, 18], "relu"


@pytest.mark.parametrize("size", [(1, 16, 16), (3, 32, 32), (32, 32, 32), (128, 16, 16), (5, 23, 37)])
@pytest.mark.parametrize("channels", [80, 96, 160])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_widths_of_the_models(dtype: torch.dtype, channels: int, size: tuple[int, int, int]) -> None:
    """No result is NaN, and those of a few images, the last among them, keep to the rule for errors."""
    x, *rest = make(channels, size, dtype)
    op = ops.OPS["aspp"]
    y = op("cuda", x, *rest)
    assert not y.isnan().any()
    assert all(torch.equal(op("cuda", x, *rest), y) for _ in range(5))
    images = torch.linspace(0, size[0] - 1, min(3, size[0]), device="cuda").round().long()

    def double(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) else value

    few = (x[images], *rest)
    assert_within_twice(y[images], op.reference(*few), op.reference(*map(double, few)))
