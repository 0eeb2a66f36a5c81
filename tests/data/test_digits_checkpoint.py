"""The checkpoint that ships with the package."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import mobilevit_fast
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.data import digits_checkpoint
from mobilevit_fast.data.digit_images import DigitImages, load_digit_images
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification
from testing.peers import import_transformers

LARGEST_FOLDER = 3_000_000  # bytes


@pytest.fixture(scope="module")
def held_out() -> DigitImages:
    return load_digit_images()[1]


@pytest.fixture(scope="module")
def processor() -> MobileViTImageProcessor:
    return MobileViTImageProcessor.from_pretrained(digits_checkpoint())


@pytest.fixture
def model() -> MobileViTForImageClassification:
    return MobileViTForImageClassification.from_pretrained(digits_checkpoint()).float()


def logits_of(model: torch.nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(batch).logits for batch in pixel_values.split(64)])


def test_the_folder_is_complete_and_small() -> None:
    files = {path.name: path.stat().st_size for path in digits_checkpoint().iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert sum(files.values()) <= LARGEST_FOLDER


def test_it_is_the_xx_small_size_for_ten_digits() -> None:
    config = MobileViTConfig.from_pretrained(digits_checkpoint())
    preset = MobileViTConfig.preset("xx_small")
    assert config.hidden_sizes == preset.hidden_sizes
    assert config.neck_hidden_sizes == preset.neck_hidden_sizes
    assert config.expand_ratio == preset.expand_ratio
    assert config.id2label == {digit: str(digit) for digit in range(10)}


def test_accuracy_with_and_without_acceleration(
    model: MobileViTForImageClassification, processor: MobileViTImageProcessor, held_out: DigitImages
) -> None:
    pixel_values, labels = processor(held_out.images)["pixel_values"], torch.from_numpy(held_out.labels)
    reference = logits_of(model, pixel_values)
    mobilevit_fast.accelerate(model, strict=True)
    accelerated = logits_of(model, pixel_values)
    assert (reference.argmax(-1) == labels).double().mean() >= 0.97
    assert torch.equal(accelerated.argmax(-1), reference.argmax(-1))


def test_the_card_tells_the_measured_accuracy(
    model: MobileViTForImageClassification, processor: MobileViTImageProcessor, held_out: DigitImages
) -> None:
    logits = logits_of(model, processor(held_out.images)["pixel_values"])
    right = int((logits.argmax(-1) == torch.from_numpy(held_out.labels)).sum())
    card = (digits_checkpoint() / "README.md").read_text(encoding="utf-8")
    assert f"| held-out fifth | {right} of {len(held_out.labels)} |" in card


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (120, 100)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_ordinary_pictures(
    model: MobileViTForImageClassification,
    processor: MobileViTImageProcessor,
    held_out: DigitImages,
    size: tuple[int, int],
    mode: str,
) -> None:
    # The first of every digit; what the size and the mode change of the pixels must not change the answer.
    rows = [int(np.flatnonzero(held_out.labels == digit)[0]) for digit in range(10)]
    digits = [held_out.images[row].resize(size, Image.Resampling.BICUBIC).convert(mode) for row in rows]
    assert logits_of(model, processor(digits)["pixel_values"]).argmax(-1).tolist() == list(range(10))


def test_stored_values_are_finite_halves() -> None:
    for name, tensor in load_file(digits_checkpoint() / "model.safetensors").items():
        assert tensor.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float16), name
        assert tensor.isfinite().all(), name


def test_transformers_reads_it(
    model: MobileViTForImageClassification, processor: MobileViTImageProcessor, held_out: DigitImages
) -> None:
    transformers = import_transformers()
    theirs = transformers.MobileViTForImageClassification.from_pretrained(digits_checkpoint()).float().eval()
    pixel_values = processor(held_out.images)["pixel_values"]
    ours, expected = logits_of(model, pixel_values), logits_of(theirs, pixel_values)
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
