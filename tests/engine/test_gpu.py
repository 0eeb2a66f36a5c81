"""The engine on a real GPU: the answers of the CPU, by graphs of every batch size, whatever comes last."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.devices import CudaDevice
from tests.engine.engines import CLASSIFIERS, KEEPING, PROCESSOR
from tests.engine.pictures import encoded, every_kind, picture, written
from tests.integrations import zoo

SIZES = (1, 4, 16)
COUNT = 53
"""Of images: three full batches and one of 5, which is filled up."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:.* rescaled once more"),  # of the file of fractions
]


@pytest.fixture(autouse=True)
def _ieee(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of PyTorch, where a model has some left, in the float32 of the CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on(device: str, kind: str = "native", **options: Any) -> Engine:
    torch.manual_seed(0)
    return Engine(zoo.SMALL[kind]().to(device), PROCESSOR, **{"batch_sizes": SIZES, "top_k": 2, **options})


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    return [encoded(picture(60 + i, 100 - i, i), "PNG" if i % 3 else "JPEG") for i in range(COUNT)]


@pytest.fixture
def graphs() -> Iterator[Engine]:
    engine = on("cuda")
    yield engine
    torch.cuda.synchronize()


def device_of(engine: Engine) -> CudaDevice:
    device = engine.compute
    assert isinstance(device, CudaDevice)
    return device


def assert_same_answers(engine: Engine, sources: Any, kind: str = "native") -> None:
    """The classes of the CPU, but where two are as likely as each other, and about its probabilities."""
    found = [*engine.stream(one for one in sources)]  # of a generator nobody knows how few there are
    expected = [*on("cpu", kind).stream(sources)]
    assert [one.source for one in found] == [one.source for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.error is None) == (other.error is None)
        if other.error is None:
            assert one.indices[0] == other.indices[0] or other.scores[0] - other.scores[1] < 1e-3
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_answers_are_those_of_the_cpu(kind: str, contents: list[bytes]) -> None:
    engine = on("cuda", kind)
    assert device_of(engine).captured == SIZES
    assert_same_answers(engine, contents, kind)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 16, 17, 20])
def test_the_last_batch_is_filled_up(graphs: Engine, contents: list[bytes], count: int) -> None:
    assert_same_answers(graphs, contents[:count])


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_any_number_of_threads_decodes(contents: list[bytes], threads: int) -> None:
    assert_same_answers(on("cuda", decode_threads=threads), contents)


def test_every_kind_of_file_and_broken_ones(graphs: Engine, tmp_path: Path) -> None:
    files = written(tmp_path, {**every_kind(), "broken.jpg": b"\xff\xd8\xffno", "text.png": b"hello"})
    assert_same_answers(graphs, [*files, tmp_path / "gone.jpg"])


def test_answers_of_a_graph_are_those_of_the_model(contents: list[bytes]) -> None:
    outputs = ("label", "score", "embedding", "logits")
    captured, called = (on("cuda", outputs=outputs, cuda_graphs=graphs) for graphs in (True, False))
    assert device_of(called).captured == ()
    for one, other in zip(captured.stream(contents), called.stream(contents), strict=True):
        np.testing.assert_allclose(one.logits, other.logits, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(one.embedding, other.embedding, rtol=1e-3, atol=1e-3)


def test_batches_of_the_host_are_pinned(graphs: Engine) -> None:
    assert graphs.slot(4).is_pinned()
    images = graphs.slot(16).fill_(7).permute(0, 3, 1, 2)
    with torch.inference_mode():
        answers = graphs.compute(images)
    assert answers.scores is not None
    assert answers.scores.device.type == "cpu"
    assert not answers.scores.is_pinned()


def test_two_streams_at_once_do_not_mix(graphs: Engine, contents: list[bytes]) -> None:
    expected = [*graphs.stream(contents)]
    backwards = [*graphs.stream(contents[::-1])]
    for one, other in zip(graphs.stream(contents), graphs.stream(contents[::-1]), strict=True):
        at = int(one.source.rpartition(" ")[2])
        assert one.indices == expected[at].indices
        assert other.indices == backwards[at].indices


def test_a_batch_in_memory_has_the_logits_of_the_cpu(graphs: Engine) -> None:
    images = np.stack([np.asarray(picture(64, 64, i)) for i in range(37)])
    engine = Engine(zoo.SMALL["native"](), KEEPING, batch_sizes=SIZES)
    on_gpu = Engine(zoo.SMALL["native"]().cuda(), KEEPING, batch_sizes=SIZES)
    torch.testing.assert_close(on_gpu(images), engine(images), rtol=1e-3, atol=1e-3)


def test_images_of_the_gpu_are_resized_there(graphs: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [torch.from_numpy(np.array(picture(60 + i, 100 - i, i))) for i in range(COUNT)]
    expected = graphs(images)
    monkeypatch.setattr(graphs, "answers", None)  # the way of each image by itself
    found = graphs([image.cuda() for image in images])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    batch = torch.stack([images[0]] * 5)
    torch.testing.assert_close(graphs(batch.cuda()), found[:1].expand(5, -1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, contents: list[bytes]) -> None:
    engine = Engine(zoo.SMALL["native"]().to("cuda", dtype), PROCESSOR, SIZES, top_k=1)
    found, expected = [*engine.stream(contents)], [*on("cpu").stream(contents)]
    same = sum(one.indices[0] == other.indices[0] for one, other in zip(found, expected, strict=True))
    assert same >= 0.9 * COUNT


def test_masks_of_a_segmentation_model(contents: list[bytes]) -> None:
    kind = "native-segmentation"
    found, expected = on("cuda", kind).stream(contents[:9]), on("cpu", kind).stream(contents[:9])
    for one, other in zip(found, expected, strict=True):
        assert one.mask is not None
        assert other.mask is not None
        assert (one.mask == other.mask).mean() > 0.99
