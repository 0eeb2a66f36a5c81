"""Batches in memory that need no resize."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.batches import logits_where_they_are, on_their_gpu
from mobilevit_fast.engine.model import EngineModel, Wanted
from tests.engine.engines import CLASSIFIERS, KEEPING, PROCESSOR, expected_logits
from tests.engine.pictures import picture
from tests.integrations import zoo


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_batch_that_needs_no_resize_is_not_looked_at_one_by_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(zoo.SMALL[kind](), KEEPING, decode_threads=2)
    arrays = np.stack([np.asarray(picture(64, 64, i)) for i in range(19)])
    expected = engine([*arrays])
    assert torch.equal(expected, expected_logits(engine, [*arrays], KEEPING))
    apart = np.zeros((38, 64, 80, 3), np.uint8)[::2, :, 8:72]
    apart[:] = arrays
    with monkeypatch.context() as only:
        only.setattr(engine, "answers", None)
        for given in (arrays, torch.from_numpy(arrays), torch.from_numpy(arrays).permute(0, 3, 1, 2), apart):
            assert torch.equal(engine(given), expected)
        assert torch.equal(engine(np.ascontiguousarray(arrays.transpose(0, 3, 1, 2))), expected)
    reading = arrays.copy()
    reading.flags.writeable = False
    for given in (reading, arrays[::-1][::-1], arrays[:, :, :, ::-1].copy()[:, :, :, ::-1]):
        assert torch.equal(engine(given), expected)
    assert engine(np.zeros((2, 65, 64, 3), np.uint8)).shape == expected[:2].shape
    with pytest.raises(ValueError, match="at least one image"):
        engine(arrays[:0])


def test_a_batch_that_fails_names_its_image() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 1:
                raise RuntimeError("not enough memory")
            return x.mean(dim=(2, 3)).masked_fill((x > 0.99).all(), float("nan"))

    engine = Engine(Picky(), KEEPING, acceleration=False, batch_sizes=(4,), decode_threads=1)
    images = np.zeros((9, 64, 64, 3), np.uint8)
    assert engine(images).shape == (9, 3)
    images[7] = 255
    with pytest.raises(ValueError, match="array 7: the model's answer is NaN"):
        engine(images)
    alone = Engine(Picky(), KEEPING, acceleration=False, batch_sizes=(1,), decode_threads=2)
    with pytest.raises(ValueError, match="array 7: the model's answer is NaN"):
        alone(images)


META = torch.device("meta")
"""Stands in for a GPU: shapes without memory."""


def test_images_on_a_gpu_are_recognized() -> None:
    preprocessing = Engine(zoo.SMALL["native"](), PROCESSOR).preprocessing
    last, first, grey = ((40, 50, 3), (3, 60, 70), (40, 50, 1))
    images = [torch.empty(shape, dtype=torch.uint8, device=META) for shape in (last, first)]
    found = on_their_gpu(images, preprocessing, META)
    assert found is not None
    assert [tuple(one.shape) for one in found] == [(40, 50, 3), (60, 70, 3)]
    batch = on_their_gpu(torch.empty((5, 3, 60, 70), dtype=torch.uint8, device=META), preprocessing, META)
    assert batch is not None
    assert [tuple(one.shape) for one in batch] == 5 * [(60, 70, 3)]
    others: list[object] = [
        [],
        torch.empty((0, 3, 60, 70), dtype=torch.uint8, device=META),
        torch.empty(last, dtype=torch.uint8, device=META),
        [*images, torch.empty(grey, dtype=torch.uint8, device=META)],
        [*images, torch.empty(last, device=META)],
        [*images, torch.empty(last, dtype=torch.uint8)],
        [*images, torch.empty((3, 40, 3), dtype=torch.uint8, device=META)],
        [*images, torch.empty((0, 40, 3), dtype=torch.uint8, device=META)],
        [*images, "photo.jpg"],
        "photo.jpg",
    ]
    for other in others:
        assert on_their_gpu(other, preprocessing, META) is None
    on_cpu = torch.empty((5, 3, 60, 70), dtype=torch.uint8)
    assert on_their_gpu(on_cpu, preprocessing, torch.device("cpu")) is None


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_images_resized_where_they_are_have_the_same_logits(kind: str) -> None:
    engine = Engine(zoo.SMALL[kind](), PROCESSOR, decode_threads=1)
    images = [torch.from_numpy(np.array(picture(50 + 9 * i, 120 - 7 * i, i))) for i in range(11)]
    compute = engine.compute.with_model(EngineModel(engine.model.module, Wanted(("logits",), 1), {}))
    found = logits_where_they_are(images, compute, engine.preprocessing, 4)
    assert found is not None
    assert torch.equal(found, engine(images))


def test_what_cannot_be_resized_where_it_is_takes_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(zoo.SMALL["native"](), PROCESSOR, decode_threads=1)
    images = [torch.from_numpy(np.array(picture(50, 60, i))) for i in range(3)]
    expected = engine(images)
    monkeypatch.setattr("mobilevit_fast.engine.engine.on_their_gpu", lambda images, *others: images)
    assert torch.equal(engine(images), expected)
    with monkeypatch.context() as other:
        other.setattr(engine.preprocessing, "resized", lambda images: None)
        assert torch.equal(engine(images), expected)
    huge = torch.zeros((1, 1_000_000, 3), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"^tensor 1: expected an image of at most"):
        engine([images[0], huge])
