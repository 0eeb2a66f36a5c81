"""The engine's way over a GPU, on one that is made up: what is captured, filled up, replayed and copied."""

import logging

import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.devices import CudaDevice
from mobilevit_fast.engine.statistics import Statistics
from mobilevit_fast.engine.stream import Stream
from tests.engine.engines import CLASSIFIERS, PROCESSOR
from tests.engine.made_up_gpu import Captures, MadeUpStreams
from tests.engine.pictures import encoded, every_kind, picture
from tests.integrations import zoo

SIZES = (1, 4, 8)


def device_of(engine: Engine, captures: Captures, graphs: bool | str = "auto") -> CudaDevice:
    return CudaDevice(engine.model, engine.preprocessing, SIZES, graphs, MadeUpStreams(), captures)  # type: ignore[arg-type]


@pytest.fixture(params=CLASSIFIERS)
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(zoo.SMALL[request.param](), PROCESSOR, batch_sizes=(8,), top_k=3)


@pytest.mark.parametrize("takes_uint8", [False, True])
def test_answers_are_those_of_the_cpu(engine: Engine, takes_uint8: bool) -> None:
    if takes_uint8:
        model = mvf.accelerate(engine.model.module, uint8_images=engine.normalization())
        engine = Engine(model, PROCESSOR, batch_sizes=(8,), top_k=3)
        assert engine.model.takes_uint8
    captures = Captures()
    device = device_of(engine, captures)
    assert device.captured == SIZES
    assert captures.sizes == [*SIZES]
    contents = [encoded(picture(70, 80, i), "PNG") for i in range(21)]
    expected = [*engine.stream(contents)]
    plan = engine.plan(None)._replace(computing=2, batch_size=8)
    sources = mvf.engine.sources.iterate(contents)
    stream = Stream(sources, engine.preprocessing, device, plan, device.slot, Statistics())
    for (source, row), one in zip(stream, expected, strict=True):
        assert source.name == one.source
        assert not isinstance(row, str)
        assert row.indices == one.indices
        assert row.scores == pytest.approx(one.scores, rel=1e-5)
    assert captures.replays == 3  # 8, 8 and 5, which are filled up to 8


@pytest.mark.parametrize(("count", "graph"), [(1, 1), (2, 4), (4, 4), (5, 8), (8, 8)])
def test_images_are_filled_up_to_the_next_size(engine: Engine, count: int, graph: int) -> None:
    captures = Captures()
    device = device_of(engine, captures)
    images = torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    replayed: list[int] = []
    device._graphs = {
        size: one._replace(replay=lambda one=one, size=size: (replayed.append(size), one.replay())[1])
        for size, one in device._graphs.items()
    }
    with torch.inference_mode():
        answers = device(images)
        alone = engine.compute(images)
    assert replayed == [graph]
    for found, expected in zip(answers, alone, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            assert torch.equal(found, expected)


def test_what_was_answered_stays(engine: Engine) -> None:
    device = device_of(engine, Captures())
    first, second = (torch.full((2, 3, 64, 64), value, dtype=torch.uint8) for value in (10, 200))
    with torch.inference_mode():
        answers = device(first)
        before = [None if one is None else one.clone() for one in answers]
        device(second)
    for one, kept in zip(answers, before, strict=True):
        assert one is None or torch.equal(one, kept)


def test_computing_waits_for_copies_and_the_host_for_computing(engine: Engine) -> None:
    device = device_of(engine, Captures())
    with torch.inference_mode():
        device(torch.zeros((2, 3, 64, 64), dtype=torch.uint8))
    copied, done = device._streams.events
    assert device._streams.compute.waited_for == [copied]
    assert done.waited


def test_images_that_the_gpu_makes_are_waited_for(engine: Engine) -> None:
    device = device_of(engine, Captures())
    streams = device._streams
    assert isinstance(streams, MadeUpStreams)
    streams.has_images = True
    with torch.inference_mode():
        device(torch.zeros((2, 3, 64, 64), dtype=torch.uint8))
    made, copied, _ = streams.events
    assert [stream.waited_for for stream in streams.copy_streams] == [[made]]
    assert streams.compute.waited_for == [copied]


def test_images_of_floating_point_or_of_another_size_are_no_graphs(engine: Engine) -> None:
    captures = Captures()
    device = device_of(engine, captures)
    contents = [every_kind()["fractions.tiff"], encoded(picture(64, 64), "PNG")]
    with pytest.warns(UserWarning, match="rescaled once more"):
        values = PROCESSOR(contents)["pixel_values"]
    with torch.inference_mode():
        answers = device(values)
        larger = device(torch.zeros((1, 3, 96, 96), dtype=torch.uint8))
        expected = engine.model.module(values)
    assert captures.replays == 0
    assert larger.indices is not None
    assert answers.indices is not None
    assert answers.indices[:, 0].tolist() == zoo.first_output(expected).argmax(-1).tolist()


def test_a_model_that_cannot_be_captured_is_called(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    captures = Captures()
    captures.fails_at = 1
    with caplog.at_level(logging.WARNING):
        device = device_of(engine, captures)
    assert device.captured == ()
    assert "no CUDA graph of 4 images: operation not permitted" in caplog.text
    with torch.inference_mode():
        assert device(torch.zeros((2, 3, 64, 64), dtype=torch.uint8)).indices is not None
    captures.fails_at = len(captures.sizes)
    with pytest.raises(RuntimeError, match="operation not permitted"):
        device_of(engine, captures, graphs=True)


def test_without_graphs_nothing_is_captured(engine: Engine) -> None:
    captures = Captures()
    assert device_of(engine, captures, graphs=False).captured == ()
    assert captures.sizes == []
