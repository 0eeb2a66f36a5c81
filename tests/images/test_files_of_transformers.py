"""A preprocessor_config.json with do_normalize, which transformers' MobileViT processors do not act on."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mobilevit_fast.images import MobileViTImageProcessor
from testing.peers import import_transformers
from tests.images.pictures import picture

NORMALIZING = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def written_by_transformers(folder: Path, **settings: Any) -> Any:
    processor = import_transformers().MobileViTImageProcessorPil(**settings)
    processor.save_pretrained(folder)
    return processor


def test_a_file_that_says_do_normalize_is_believed_unless_told_otherwise(tmp_path: Path) -> None:
    theirs = written_by_transformers(tmp_path, **NORMALIZING)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["do_normalize"] is True
    assert MobileViTImageProcessor.from_pretrained(tmp_path).settings.do_normalize
    ours = MobileViTImageProcessor.from_pretrained(tmp_path, do_normalize=False)
    expected = theirs(picture(30, 50), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(ours(picture(30, 50), return_tensors="np")["pixel_values"], expected)


def test_the_own_file_of_one_that_normalises_is_believed(tmp_path: Path) -> None:
    processor = MobileViTImageProcessor(**NORMALIZING)
    processor.save_pretrained(tmp_path)
    again = MobileViTImageProcessor.from_pretrained(tmp_path)
    assert again.settings == processor.settings
    assert again.unknown_keys == {}
    assert import_transformers().MobileViTImageProcessorPil.from_pretrained(tmp_path).do_normalize is True
