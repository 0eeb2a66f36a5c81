"""Normalisation, which transformers' MobileViT processor does not do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mobilevit_fast.images import ImageError, MobileViTImageProcessor
from testing.paths import UCMERCED, needs_ucmerced
from testing.peers import import_transformers
from tests.images.pictures import assert_identical, noise, picture

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SMALL = {"size": 20, "crop_size": 26}


def normalized_by_transformers(image: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    import_transformers()
    from transformers.image_transforms import normalize

    return normalize(image, mean, std, input_data_format="channels_first")


@pytest.mark.parametrize("do_rescale", [True, False])
def test_arithmetic(do_rescale: bool) -> None:
    processor = MobileViTImageProcessor(**SMALL, do_flip_channel_order=False, do_rescale=do_rescale)
    plain = processor(picture(30, 50), return_tensors="np")["pixel_values"]
    ours = processor(picture(30, 50), return_tensors="np", do_normalize=True, image_mean=MEAN, image_std=STD)
    assert_identical(ours["pixel_values"][0], normalized_by_transformers(plain[0], MEAN, STD))


def test_off_by_default() -> None:
    processor = MobileViTImageProcessor(**SMALL)
    assert processor.do_normalize is False
    with_mean = processor(picture(30, 50), image_mean=MEAN, image_std=STD)
    assert torch.equal(with_mean.pixel_values, processor(picture(30, 50)).pixel_values)


def test_mean_follows_the_colour_through_the_flip() -> None:
    processor = MobileViTImageProcessor(**SMALL, do_normalize=True, image_mean=MEAN, image_std=STD)
    bgr = processor(picture(30, 50)).pixel_values
    rgb = processor(picture(30, 50), do_flip_channel_order=False).pixel_values
    assert torch.equal(bgr.flip(1), rgb)


def test_one_number_for_all_channels() -> None:
    processor = MobileViTImageProcessor(**SMALL, do_normalize=True)
    one = processor(picture(30, 50), image_mean=0.25, image_std=0.5)
    three = processor(picture(30, 50), image_mean=[0.25] * 3, image_std=[0.5] * 3)
    assert torch.equal(one.pixel_values, three.pixel_values)


def test_number_of_means() -> None:
    processor = MobileViTImageProcessor(**SMALL, do_normalize=True)
    with pytest.raises(
        ImageError, match="image 0: expected image_mean to have one value for each of 1 channels, got 3"
    ):
        processor(noise((30, 50)))


@needs_ucmerced
def test_trained_weights_see_what_they_were_trained_on() -> None:
    assert UCMERCED is not None
    from safetensors.torch import load_file

    transformers = import_transformers()
    rows = (UCMERCED / "labels.csv").read_text().splitlines()[1:]
    photos = [find_photo(UCMERCED, row) for row in rows[::30]]
    processor = MobileViTImageProcessor.from_pretrained(UCMERCED / "hf")
    model = transformers.MobileViTForImageClassification.from_pretrained(UCMERCED / "hf").eval()
    with torch.inference_mode():
        logits = model(**processor(photos)).logits
    expected = next(iter(load_file(UCMERCED / "reference_logits.safetensors").values()))[::30]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def find_photo(folder: Path, row: str) -> Path:
    return folder / "images" / Path(row.split(",")[0]).name
