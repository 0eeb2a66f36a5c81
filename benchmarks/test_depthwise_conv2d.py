"""Depthwise convolution with normalisation and SiLU: one operator against the three of PyTorch.

Run with `python -m pytest benchmarks`; rows of one group are the same work.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shapes import InvertedResidualShape, all_inverted_residuals, inverted_residuals
from mobilevit_fast import ops

CASES = sorted({(s.expanded, s.size, s.stride) for _, s in all_inverted_residuals()})


def pytorch(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolution, normalisation and activation one after the other, in channels_last."""
    y = F.conv2d(x, weight, None, stride, 1, groups=x.shape[1])
    y = F.batch_norm(y, torch.zeros_like(scale), torch.ones_like(scale), scale, bias, eps=1e-30)
    return F.silu(y, inplace=True)


def operator(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, stride: int) -> Tensor:
    """The C++ kernel."""
    kernel = torch.ops.mobilevit_fast.depthwise_conv2d.cpu
    return kernel(x, weight, scale, bias, [stride] * 2, [1, 1], [1, 1], "silu")


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("channels", "size", "stride"), CASES)
@pytest.mark.parametrize("run", [operator, pytorch])
def test_depthwise_conv2d(
    benchmark: Any, run: Any, channels: int, size: int, stride: int, dtype: torch.dtype, batch: int
) -> None:
    benchmark.group = f"depthwise {batch}x{channels}x{size}x{size} stride {stride} {str(dtype).removeprefix('torch.')}"
    x = torch.randn(batch, channels, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = ops.channel_innermost(torch.randn(channels, 1, 3, 3).to(dtype))
    scale, bias = torch.rand(channels) + 0.5, torch.randn(channels)
    with torch.inference_mode():
        expected = pytorch(x, weight, scale, bias, stride).float()
        actual = benchmark(run, x, weight, scale, bias, stride).float()
    assert (actual - expected).abs().max() <= torch.finfo(dtype).eps * 8 * expected.abs().max()


def test_the_shapes_are_those_of_the_network() -> None:
    small = inverted_residuals("small")
    assert small[0] == InvertedResidualShape(16, 64, 32, 128, 1)
    assert small[-1] == InvertedResidualShape(128, 512, 160, 16, 2)
