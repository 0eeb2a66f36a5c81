"""Exact and fast preprocessing: the image processor's pixels, and JPEG that is reduced while it is decoded."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import mobilevit_fast as mvf
from mobilevit_fast.engine import Engine
from mobilevit_fast.engine.preprocessing import Preprocessing
from testing.paths import UCMERCED, needs_ucmerced
from tests.engine.engines import PROCESSOR
from tests.engine.pictures import encoded, picture


@pytest.mark.parametrize(
    ("height", "width", "reduction"),
    [
        (143, 300, 1),
        (144, 143, 1),  # 72 is what the resize asks for
        (144, 144, 2),
        (287, 900, 2),
        (300, 300, 4),
        (575, 576, 4),
        (576, 576, 8),
        (600, 800, 8),
        (1400, 1300, 8),
    ],
)
def test_fast_preprocessing_reduces_jpeg_while_it_decodes(height: int, width: int, reduction: int) -> None:
    content = encoded(picture(height, width))
    prepared = []
    for mode, by in (("exact", 1), ("fast", reduction)):
        preprocessing = Preprocessing(PROCESSOR, mode)
        pixels = preprocessing.decode(content)
        assert pixels.shape == (3, -(-height // by), -(-width // by))
        prepared.append(torch.empty(64, 64, 3, dtype=torch.uint8))
        preprocessing.write(pixels, prepared[-1])
    exact, fast = (images.float() for images in prepared)
    assert (exact - fast).abs().mean() < 1.5


def enlarged(photo: Path, side: int) -> bytes:
    with Image.open(photo) as image:
        return encoded(image.convert("RGB").resize((side * 4 // 3, side), Image.Resampling.LANCZOS), quality=90)


@needs_ucmerced
@pytest.mark.slow
def test_photos_are_answered_as_by_processor_and_model() -> None:
    assert UCMERCED is not None
    model = mvf.MobileViTForImageClassification.from_pretrained(UCMERCED / "hf").eval()
    processor = mvf.MobileViTImageProcessor.from_pretrained(UCMERCED / "hf")
    photos = sorted((UCMERCED / "images").rglob("*.jpg"))
    large = [enlarged(photo, (600, 1000, 2100)[i % 3]) for i, photo in enumerate(photos[::10])]  # by 2, 2 or 8
    contents = [photo.read_bytes() for photo in photos[::7]] + large
    exact = Engine(mvf.accelerate(model), processor)
    fast = Engine(model, processor, preprocessing="fast")
    assert [fast.preprocessing.decode(content).shape[1] for content in large[:3]] == [300, 500, 263]
    logits = exact(contents)
    with torch.inference_mode():
        expected = torch.cat([model(**processor(contents[i : i + 7])).logits for i in range(0, len(contents), 7)])
    assert torch.equal(logits, expected)
    found = fast(contents)
    torch.testing.assert_close(found, logits, rtol=0, atol=0.6)  # photos reduced too far err by 2.8
    assert (found.argmax(-1) == logits.argmax(-1)).float().mean() >= 0.995
