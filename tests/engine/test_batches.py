"""Batches in memory that need no resize."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobilevit_fast.engine import Engine
from tests.engine.engines import CLASSIFIERS, KEEPING, expected_logits
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
