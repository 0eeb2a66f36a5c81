"""`uint8_images` with processors of transformers: what their class does to pixels counts, not what their file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mobilevit_fast as mvf
from testing.pairs import tiny_config
from testing.peers import import_transformers
from tests.integrations import zoo

NORMALIZING = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLASSES = ["MobileViTImageProcessor", "MobileViTImageProcessorPil"]
AS_THEY_ARE = {"do_resize": False, "do_center_crop": False}


def theirs(name: str, folder: Path, **settings: Any) -> Any:
    """A processor of transformers from a file that asks for normalisation."""
    values = {"image_processor_type": name, **NORMALIZING, **AS_THEY_ARE, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    processor = getattr(import_transformers(), name).from_pretrained(folder)
    assert type(processor).__name__ == name
    assert processor.do_normalize is True
    return processor


@pytest.mark.parametrize("settings", [{}, {"do_flip_channel_order": False}, {"rescale_factor": 1 / 127.5}], ids=str)
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("library", ["transformers", "timm", "native"])
def test_bytes_are_what_the_processor_would_have_made(
    library: str, name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    processor = theirs(name, tmp_path, **settings)
    x = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    processed = processor(list(x), return_tensors="pt", input_data_format="channels_first")["pixel_values"]
    model = {"transformers": lambda: zoo.transformers(tiny_config()), "timm": zoo.timm_small}.get(
        library, lambda: zoo.native(tiny_config())
    )()
    expected = zoo.run(model, processed)
    mvf.accelerate(model, uint8_images=processor)
    torch.testing.assert_close(zoo.run(model, x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_subclasses_that_normalise_are_believed(name: str, tmp_path: Path) -> None:
    base = type(theirs(name, tmp_path))

    class Same(base):
        pass

    class Normalizing(base):
        def _preprocess(self, images: Any, **kwargs: Any) -> Any:
            return [self.normalize(image, self.image_mean, self.image_std) for image in images]

    assert mvf.PixelNormalization.from_processor(Same(**NORMALIZING)).subtracts is False
    assert mvf.PixelNormalization.from_processor(Normalizing(**NORMALIZING)).mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", ["ViTImageProcessor", "ViTImageProcessorPil"])
def test_processors_of_other_models_normalise(name: str) -> None:
    processor = getattr(import_transformers(), name)(**NORMALIZING)
    pixels = mvf.PixelNormalization.from_processor(processor)
    assert (pixels.std, pixels.flip_channel_order) == ((0.229, 0.224, 0.225), False)


def test_this_packages_own_normalises() -> None:
    pixels = mvf.PixelNormalization.from_processor(mvf.MobileViTImageProcessor(**NORMALIZING))
    assert pixels.mean == (0.485, 0.456, 0.406)
