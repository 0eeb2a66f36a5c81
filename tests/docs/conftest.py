"""Where the code of the pages runs: a folder with a checkpoint of the hub's name, and photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobilevit_fast as mvf
from mobilevit_fast.checkpoints import write_checkpoint
from testing.peers import import_transformers
from tests.checkpoints.helpers import randomised
from tests.docs.running import SMALL

HUB_ID = "apple/mobilevit-small"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the name of the hub is a small checkpoint."""
    folder = tmp_path_factory.mktemp("hub")
    config = mvf.MobileViTConfig(**SMALL, num_labels=1000)
    write_checkpoint(randomised(mvf.MobileViTForImageClassification(config)), folder / HUB_ID)
    mvf.MobileViTImageProcessor().save_pretrained(folder / HUB_ID)
    return folder


@pytest.fixture
def place(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a reader: a checkpoint and photos."""
    import_transformers()  # importable afterwards, whatever torchvision there is
    (tmp_path / "apple").symlink_to(checkpoint / "apple")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "dog.jpg", "photos/a.jpg", "photos/b.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
