"""Images that do not fit: an accelerated model refuses them in its own words, as it did before."""

import pytest
import torch

import mobilevit_fast as mvf
from testing.pairs import tiny_config
from tests.integrations import zoo

KINDS = [mvf.MobileViTModel, mvf.MobileViTForImageClassification, mvf.MobileViTForSemanticSegmentation]


SHAPES = [(1, 4, 64, 64), (1, 1, 64, 64), (3, 64, 64), (64, 64), (1, 64, 64, 3), (1, 1, 3, 8, 8)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_refuses(kind: type, shape: tuple[int, ...]) -> None:
    model = kind(tiny_config()).eval()
    for accelerated in (False, True):
        if accelerated:
            mvf.accelerate(model)
        with torch.inference_mode(), pytest.raises(ValueError, match=r"expected pixel_values of shape \(batch, 3, hei"):
            model(torch.zeros(shape))


@pytest.mark.parametrize("shape", [*SHAPES, (1, 3, 0, 64)])
@pytest.mark.parametrize("name", ["transformers", "timm"])
def test_a_library_s_model_refuses_with_the_error_of_before(name: str, shape: tuple[int, ...]) -> None:
    model = zoo.SMALL[name]()
    with torch.inference_mode(), pytest.raises(Exception) as before:  # noqa: PT011, whichever it is
        model(torch.zeros(shape))
    mvf.accelerate(model)
    with torch.inference_mode(), pytest.raises(type(before.value)):
        model(torch.zeros(shape))
