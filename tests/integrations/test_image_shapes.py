"""Images that do not fit: an accelerated model refuses them in its own words, as it did before."""

import pytest
import torch

import mobilevit_fast as mvf
from testing.pairs import tiny_config

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
