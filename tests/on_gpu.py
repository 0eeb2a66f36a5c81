"""What only a GPU can show of an accelerated model, for each of its backends: the importing file has the ``model``."""

from __future__ import annotations

import warnings

import pytest
import torch

from testing.tolerance import close
from tests.integrations import zoo

# Imported by name, so that pytest finds them there.
__all__ = [
    "test_a_compiled_model_is_one_graph",
    "test_a_graph_is_replayed_with_other_inputs",
    "test_tensors_on_another_than_the_current_device",
    "test_the_host_does_not_wait_for_the_device",
    "test_two_streams",
]


@pytest.mark.parametrize("batch", [2, 256])
def test_a_graph_is_replayed_with_other_inputs(model: torch.nn.Module, batch: int) -> None:
    """Few images and many, which may take other kernels."""
    x = zoo.images(batch, 64, 64).cuda().half()
    zoo.run(model, x)  # compiles what there is to compile, and packs the weights
    torch.cuda.synchronize()
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
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
