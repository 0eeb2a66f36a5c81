"""What only a GPU can show of the CUDA library: replayed graphs, streams, devices, determinism, large tensors."""

from __future__ import annotations

import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast import ops
from mobilevit_fast.config import MobileViTConfig
from tests.cuda.conftest import EMULATED
from tests.integrations import zoo
from tests.tolerance import close

pytestmark = pytest.mark.skipif(EMULATED, reason="the emulator has no streams or graphs")


@pytest.fixture
def model() -> torch.nn.Module:
    model = zoo.native(MobileViTConfig.preset("xx_small", num_labels=10)).cuda().half()
    return mvf.accelerate(model, backend="cuda", strict=True)


@pytest.mark.parametrize("batch", [1, 256])
def test_a_graph_is_replayed_with_other_inputs(model: torch.nn.Module, batch: int) -> None:
    """With few images layer by layer, with many the whole stack in one kernel."""
    x = zoo.images(batch, 64, 64).cuda().half()
    zoo.run(model, x)  # packs the weights
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = model(x).logits
    for seed in (1, 2):
        other = zoo.images(batch, 64, 64, seed).cuda().half()
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
    zoo.run(model, x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            model(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("batch", [1, 64])
def test_results_are_the_same_every_time(model: torch.nn.Module, batch: int) -> None:
    x = zoo.images(batch, 256, 256).cuda().half()
    expected = zoo.run(model, x)
    assert all(torch.equal(zoo.run(model, x), expected) for _ in range(20))


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
