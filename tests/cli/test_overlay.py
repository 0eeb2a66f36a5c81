"""Pictures of segmentation: colours over a photo, in little more memory than the photo takes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mobilevit_fast.cli.overlay import colour, paint, shares
from testing.paths import REPOSITORY

LABELS = {0: "background", 1: "cat", 2: "dog", 200: "eel"}


def test_colours_are_mixed_as_in_float32() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (700, 1200, 3), dtype=np.uint8)
    classes = torch.from_numpy(generator.choice([*LABELS, 7], (700, 1200)))
    found = shares(classes, LABELS)
    assert {one.index: one.share for one in found} == {
        index: float((classes == index).sum()) / classes.numel() for index in (*LABELS, 7)
    }
    photo = Image.fromarray(pixels)
    picture = np.array(paint(photo, classes, found))
    assert np.array_equal(np.array(photo), pixels)

    expected = pixels.astype(np.float32)
    for one in found:
        if one.label != "background":
            where = classes.numpy() == one.index
            expected[where] += 0.55 * (np.array(colour(one.index), dtype=np.float32) - expected[where])
    beside = np.s_[:, 600:]  # of the legend
    assert np.array_equal(picture[beside], expected.round().astype(np.uint8)[beside])


MEMORY = """
import resource
import torch
from PIL import Image
from mobilevit_fast.cli.overlay import paint, shares

labels = {index: f"class {index}" for index in range(3)}
paint(Image.new("RGB", (64, 64)), torch.zeros(64, 64, dtype=torch.int64), shares(torch.zeros(64, 64).long(), labels))
photo = Image.new("RGB", (5000, 4000), (10, 100, 200))
classes = torch.ones(4000, 5000, dtype=torch.int64)
classes[:2000, :2500] = 2
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
paint(photo, classes, shares(classes, labels))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * 5000 * 4000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is asked as on Linux")
def test_memory_for_a_large_photo() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    # In photos of 4 bytes a pixel, as Pillow holds them: the picture is one.
    assert float(done.stdout) < 1.5
