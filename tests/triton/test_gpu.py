"""What only a GPU can show: replayed graphs, other streams, no waiting for the device, other devices."""

from __future__ import annotations

import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.kernels.triton.backend import INTERPRETING
from tests.integrations import zoo
from tests.on_gpu import *  # noqa: F403 - the tests of every backend

pytestmark = pytest.mark.skipif(INTERPRETING, reason="the interpreter has no streams or graphs")


@pytest.fixture
def model() -> torch.nn.Module:
    model = zoo.native(MobileViTConfig.preset("xx_small", num_labels=10)).cuda().half()
    return mvf.accelerate(model, backend="triton", strict=True)


def test_more_elements_than_32_bits_count() -> None:
    """The last pixels of an input and a result of more than 2³¹ elements are those of a small image."""
    channels, side = 8, 16400  # 2.15e9 elements, 4.3 GB each in float16
    if torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("needs 16 GiB of free memory")
    weight = torch.randn(channels, channels, 1, 1, device="cuda").half()
    x = torch.zeros(1, side, side, channels, dtype=torch.float16, device="cuda").permute(0, 3, 1, 2)
    corner = torch.randn(1, channels, 4, 4, device="cuda").half()
    x[..., -4:, -4:] = corner
    arguments = (None, weight, None, None, [1, 1], [0, 0], [1, 1], "silu")
    y = torch.ops.mobilevit_fast.conv2d_bias_act.triton(x, *arguments)
    assert torch.equal(y[..., -4:, -4:], torch.ops.mobilevit_fast.conv2d_bias_act.triton(corner, *arguments))
