"""The mapping the processor returns."""

import copy
import pickle
from typing import Any

import pytest
import torch

from mobilevit_fast.images import BatchFeature, MobileViTImageProcessor
from tests.images.pictures import noise

PROCESSOR = MobileViTImageProcessor(size=20, crop_size=16)


def features(**options: Any) -> BatchFeature:
    return PROCESSOR(noise((30, 50, 3)), noise((30, 50)), **options)


def test_mapping_and_attributes() -> None:
    result = features()
    assert list(result) == ["pixel_values", "labels"]
    assert result.pixel_values is result["pixel_values"]

    def model(pixel_values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Size, torch.Size]:
        return pixel_values.shape, labels.shape

    assert model(**result) == ((1, 3, 16, 16), (1, 16, 16))
    with pytest.raises(AttributeError, match=r"no entry 'logits'; expected one of \['labels', 'pixel_values'\]"):
        result.logits  # noqa: B018
    with pytest.raises(KeyError):
        result["logits"]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((torch.float64,), {}),
        (("cpu", torch.float64), {}),
        ((), {"dtype": torch.float64}),
        ((torch.device("cpu"),), {"dtype": torch.float64, "non_blocking": True}),
    ],
)
def test_dtype_is_for_floating_point_only(args: Any, kwargs: Any) -> None:
    result = features()
    assert result.to(*args, **kwargs) is result
    assert result.pixel_values.dtype is torch.float64
    assert result.labels.dtype is torch.int64


@pytest.mark.parametrize(("args", "kwargs"), [(("meta",), {}), ((), {"device": "meta"}), (("meta", torch.half), {})])
def test_device_is_for_all(args: Any, kwargs: Any) -> None:
    result = features().to(*args, **kwargs)
    assert result.pixel_values.device.type == result.labels.device.type == "meta"


@pytest.mark.parametrize("tensors", ["np", None])
def test_only_tensors_move(tensors: Any) -> None:
    with pytest.raises(TypeError, match=r'BatchFeature.to: expected tensors \(return_tensors="pt"\), got '):
        features(return_tensors=tensors).to("cpu")


def test_copy_and_pickle() -> None:
    result = features()
    for again in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert torch.equal(again.pixel_values, result.pixel_values)
        assert torch.equal(again.labels, result.labels)
