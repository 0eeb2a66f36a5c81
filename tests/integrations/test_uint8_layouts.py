"""Bytes with their channels last by mistake: the message says so, for models of every library."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mobilevit_fast as mvf
from testing.pairs import tiny_config
from tests.integrations import zoo

MAKE = {
    "transformers": lambda: zoo.transformers(tiny_config()),
    "timm": zoo.timm_small,
    "native": lambda: zoo.native(tiny_config()),
}
PIXELS = [mvf.PixelNormalization(), mvf.PixelNormalization(mean=(1.0, 2.0, 3.0), std=2.0)]


@pytest.mark.parametrize("pixels", PIXELS, ids=["apple", "mean"])
@pytest.mark.parametrize("shape", [(1, 128, 96, 3), (2, 64, 64, 3), (64, 64, 3)], ids=str)
@pytest.mark.parametrize("library", MAKE)
def test_channels_last_are_named(library: str, shape: tuple[int, ...], pixels: mvf.PixelNormalization) -> None:
    model: Any = mvf.accelerate(MAKE[library](), uint8_images=pixels)
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    for training in (False, True):
        model.train(training)
        match = r"channels last; .*\.movedim\(-1, -3\) has them first"
        with torch.set_grad_enabled(training), pytest.raises(ValueError, match=match):
            model(x)
    batch = x.movedim(-1, -3).reshape(-1, 3, *shape[-3:-1])
    assert len(zoo.run(model.eval(), batch)) == len(batch)


@pytest.mark.parametrize("library", MAKE)
def test_images_without_a_batch(library: str) -> None:
    model: Any = mvf.accelerate(MAKE[library](), uint8_images=PIXELS[1])
    with pytest.raises(ValueError, match=r"batch, .*channels|\(batch, 3") as error:
        zoo.run(model, torch.zeros(3, 64, 64, dtype=torch.uint8))
    assert "(3, 64, 64)" in str(error.value)
    assert "last" not in str(error.value)


@pytest.mark.parametrize("shape", [(1, 3, 64, 3), (1, 3, 3, 3), (2, 3, 32, 4)], ids=str)
def test_narrow_images_are_no_mistake(shape: tuple[int, ...]) -> None:
    model: Any = mvf.accelerate(MAKE["transformers"](), uint8_images=PIXELS[0])
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    torch.testing.assert_close(zoo.run(model, x), zoo.run(model, PIXELS[0].normalized(x, torch.float32)))
