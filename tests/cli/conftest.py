"""Checkpoints and photos for the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilevit_fast.checkpoints import write_checkpoint
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTForSemanticSegmentation
from tests.checkpoints.helpers import randomised

SMALL = {"hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16], "image_size": 64}


def labels(*names: str) -> dict[str, dict]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small untrained classifier of four classes, with its processor."""
    folder = tmp_path_factory.mktemp("classifier")
    config = MobileViTConfig(**SMALL, **labels("cat", "dog", "eel", "[red]fox[/red]"))
    write_checkpoint(randomised(MobileViTForImageClassification(config)), folder)
    MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small untrained segmentation model, with its processor."""
    folder = tmp_path_factory.mktemp("segmenter")
    config = MobileViTConfig(**SMALL, **labels("background", "cat", "dog"), output_stride=16, aspp_out_channels=8)
    write_checkpoint(randomised(MobileViTForSemanticSegmentation(config)), folder)
    MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=64).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folder of six photos of several formats and sizes, one in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, height, width in (
        ("b.png", 80, 64),
        ("a.jpg", 64, 90),
        ("c.JPEG", 100, 100),
        ("d.bmp", 65, 71),
        ("more/e.webp", 70, 70),
        ("more/f.png", 64, 64),
    ):
        low = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder
