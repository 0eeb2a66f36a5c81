"""What only a GPU can show: replayed graphs, other streams, no waiting for the device, other devices."""

from __future__ import annotations

import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.ops.triton_backend import INTERPRETING
from tests.integrations import zoo
from tests.tolerance import close

pytestmark = pytest.mark.skipif(INTERPRETING, reason="the interpreter has no streams or graphs")


@pytest.fixture
def model() -> torch.nn.Module:
    model = zoo.native(MobileViTConfig.preset("xx_small", num_labels=10)).cuda().half()
    model = mvf.accelerate(model, backend="triton", strict=True)
    with torch.no_grad():
        model(zoo.images(2, 64, 64).cuda().half())  # compiles the kernels
    torch.cuda.synchronize()
    return model


def test_a_graph_is_replayed_with_other_inputs(model: torch.nn.Module) -> None:
    x = zoo.images(2, 64, 64).cuda().half()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = model(x).logits
    for seed in (1, 2):
        other = zoo.images(2, 64, 64, seed).cuda().half()
        x.copy_(other)
        graph.replay()
        assert torch.equal(y, zoo.run(model, other))


def test_two_streams(model: torch.nn.Module) -> None:
    inputs = [zoo.images(2, 64, 64, seed).cuda().half() for seed in (1, 2)]
    expected = [zoo.run(model, x) for x in inputs]
    streams = [torch.cuda.Stream() for _ in inputs]
    torch.cuda.synchronize()
    results = []
    for stream, x in zip(streams, inputs, strict=True):
        with torch.cuda.stream(stream):
            results.append(zoo.run(model, x))
    torch.cuda.synchronize()
    assert all(map(torch.equal, results, expected))


def test_the_host_does_not_wait_for_the_device(model: torch.nn.Module) -> None:
    x = zoo.images(2, 64, 64).cuda().half()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            model(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_compiled_model_is_one_graph(model: torch.nn.Module) -> None:
    x = zoo.images(2, 64, 64).cuda().half()
    expected = zoo.run(model, x)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)
        close(compiled(x).logits, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_on_another_than_the_current_device(model: torch.nn.Module) -> None:
    x = zoo.images(2, 64, 64).half()
    expected = zoo.run(model, x.cuda(0))
    assert torch.equal(zoo.run(model.to("cuda:1"), x.to("cuda:1")).cpu(), expected.cpu())


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
