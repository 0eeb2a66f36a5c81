"""What only a GPU can show of the CUDA library: replayed graphs, streams, devices, determinism, large tensors."""

from __future__ import annotations

import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast import ops
from mobilevit_fast.config import MobileViTConfig
from tests.cuda.conftest import EMULATED
from tests.integrations import zoo
from tests.on_gpu import *  # noqa: F403 - the tests of every backend

pytestmark = pytest.mark.skipif(EMULATED, reason="the emulator has no streams or graphs")


@pytest.fixture
def model() -> torch.nn.Module:
    model = zoo.native(MobileViTConfig.preset("xx_small", num_labels=10)).cuda().half()
    return mvf.accelerate(model, backend="cuda", strict=True)


@pytest.mark.parametrize("batch", [1, 64])
def test_results_are_the_same_every_time(model: torch.nn.Module, batch: int) -> None:
    x = zoo.images(batch, 256, 256).cuda().half()
    expected = zoo.run(model, x)
    assert all(torch.equal(zoo.run(model, x), expected) for _ in range(20))


def test_more_elements_than_32_bits_count() -> None:
    """The last image of an input and a result of more than 2³¹ elements is that image by itself."""
    channels, side, batch = 64, 256, 520  # 2.18e9 elements, 4.4 GB each in float16
    if torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("needs 16 GiB of free memory")
    x = torch.zeros(batch, side, side, channels, dtype=torch.float16, device="cuda").permute(0, 3, 1, 2)
    x[-1] = torch.randn(channels, side, side, device="cuda").half()
    expand, depthwise = (torch.randn(64, n, k, k, device="cuda").half() for n, k in ((channels, 1), (1, 3)))
    project = torch.randn(channels, 64, 1, 1, device="cuda").half() / 8
    for op, parameters in {
        "inverted_residual": (expand / 8, None, None, depthwise, None, None, project, None, None, [1, 1], [1, 1], True),
        "depthwise_conv2d": (depthwise, None, None, [1, 1], [1, 1], [1, 1]),
    }.items():
        y = ops.OPS[op]("cuda", x, *parameters, "silu")
        assert torch.equal(y[-1:], ops.OPS[op]("cuda", x[-1:].clone(), *parameters, "silu"))
