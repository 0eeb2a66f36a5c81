"""Models accelerated with ``cuda_graphs``: what only a GPU can show."""

from __future__ import annotations

import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast.config import MobileViTConfig
from tests.cuda.conftest import EMULATED
from tests.integrations import zoo

pytestmark = pytest.mark.skipif(EMULATED, reason="the emulator has no streams or graphs")


def models() -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same model with graphs and without."""
    config = MobileViTConfig.preset("xx_small", num_labels=10)
    plain = zoo.native(config).cuda().half()
    graphed = zoo.native(config).cuda().half()
    graphed.load_state_dict(plain.state_dict())
    return mvf.accelerate(graphed, cuda_graphs=True), mvf.accelerate(plain)


def images(batch: int, seed: int = 0, size: int = 256) -> torch.Tensor:
    return zoo.images(batch, size, size, seed).cuda().half()


def test_results_are_those_without() -> None:
    graphed, plain = models()
    for batch, size in ((1, 256), (8, 256), (3, 224), (1, 256)):
        for seed in range(3):
            x = images(batch, seed, size)
            assert torch.equal(zoo.run(graphed, x), zoo.run(plain, x))
    assert mvf.report(graphed).cuda_graphs == "3 shapes captured"


def test_other_weights_are_noticed_when_their_memory_is_gone() -> None:
    graphed, plain = models()
    x = images(1)
    before = zoo.run(graphed, x)
    for model in (graphed, plain):
        for parameter in model.parameters():
            parameter.data = parameter.data * 1.1
        zoo.run(model, images(2))  # packs them anew
    torch.cuda.empty_cache()
    found = zoo.run(graphed, x)
    assert torch.equal(found, zoo.run(plain, x))
    assert not torch.equal(found, before)


def test_streams_share_the_graphs_memory_in_turns() -> None:
    graphed, plain = models()
    inputs = [images(8, seed) for seed in range(6)]
    expected = [zoo.run(plain, x) for x in inputs]
    zoo.run(graphed, inputs[0])
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for i, x in enumerate(inputs * 4):
        with torch.cuda.stream(streams[i % 3]):
            results.append(zoo.run(graphed, x))
    torch.cuda.synchronize()
    assert all(map(torch.equal, results, expected * 4))


def test_a_capture_of_somebody_else_takes_the_launches() -> None:
    graphed, plain = models()
    x = images(2)
    zoo.run(graphed, x), zoo.run(plain, x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = graphed(x).logits
    other = images(2, 1)
    x.copy_(other)
    graph.replay()
    assert torch.equal(y, zoo.run(plain, other))


def test_inference_mode_and_bytes() -> None:
    config = MobileViTConfig.preset("xx_small", num_labels=10)
    pixels = mvf.PixelNormalization(1 / 255)
    model = zoo.native(config).cuda().half()
    plain = mvf.accelerate(zoo.native(config).cuda().half(), uint8_images=pixels)
    plain.load_state_dict(model.state_dict())
    graphed = mvf.accelerate(model, uint8_images=pixels, cuda_graphs=True)
    x = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, device="cuda")
    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(graphed(x).logits, plain(x).logits)
    assert mvf.report(graphed).cuda_graphs == "1 shape captured"
