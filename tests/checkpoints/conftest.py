"""Saved and unsaved models that the tests of checkpoints share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilevit_fast.checkpoints import write_checkpoint
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTForSemanticSegmentation
from tests.checkpoints.helpers import LABELS, randomised


@pytest.fixture(scope="module")
def classifier() -> MobileViTForImageClassification:
    return randomised(MobileViTForImageClassification(MobileViTConfig.preset("xx_small", **LABELS)))


@pytest.fixture(scope="module")
def segmenter() -> MobileViTForSemanticSegmentation:
    config = MobileViTConfig.preset("xx_small", **LABELS, output_stride=8, aspp_out_channels=16)
    return randomised(MobileViTForSemanticSegmentation(config))


@pytest.fixture
def saved(classifier: MobileViTForImageClassification, tmp_path: Path) -> Path:
    write_checkpoint(classifier, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that can be: what a killed process wrote is there either way, and this is faster."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)
