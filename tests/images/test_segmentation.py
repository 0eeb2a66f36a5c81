"""Segmentation maps on the way in, and logits on the way out."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilevit_fast.images import BatchFeature, ImageError, MobileViTImageProcessor
from tests.images.pictures import assert_identical, noise, peer, picture

pytestmark = pytest.mark.filterwarnings("ignore:.*channels first or last")

SMALL = {"size": 20, "crop_size": 16}
PROCESSOR = MobileViTImageProcessor(**SMALL)
IMAGE = picture(30, 50)


@pytest.mark.parametrize("reduce", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64", "float32"])
def test_maps_as_in_transformers(dtype: str, reduce: bool) -> None:
    labels = noise((30, 50)).astype(dtype)
    for options in (
        {},
        {"do_resize": False},
        {"do_center_crop": False},
        {"size": (11, 7), "do_rescale": False},
    ):
        ours = PROCESSOR(IMAGE, labels.copy(), return_tensors="np", do_reduce_labels=reduce, **options)
        theirs = peer(**SMALL)(IMAGE, labels.copy(), return_tensors="np", do_reduce_labels=reduce, **options)
        assert_identical(ours["labels"], theirs["labels"])
        assert_identical(ours["pixel_values"], theirs["pixel_values"])
        assert ours["labels"].dtype == np.int64


edges = st.integers(1, 40)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(edges, edges),
    size=st.one_of(edges, st.tuples(edges, edges)),
    crop=st.tuples(edges, edges),
    reduce=st.booleans(),
    resize=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_map(shape: Any, size: Any, crop: Any, reduce: bool, resize: bool, seed: int) -> None:
    labels = noise(shape, seed=seed)
    options = {"size": size, "crop_size": crop, "do_reduce_labels": reduce, "do_resize": resize}
    theirs: Any = None
    with contextlib.suppress(Exception):
        theirs = peer()(noise((3, *shape)), labels.copy(), return_tensors="np", **options)["labels"]
    assert theirs is not None
    assert_identical(PROCESSOR(noise((3, *shape)), labels, **options)["labels"], theirs)


@pytest.mark.parametrize("mode", ["L", "P", "I", "I;16", "1"])
def test_pil_maps_and_files(mode: str, tmp_path: Path) -> None:
    labels = Image.fromarray(noise((30, 50))).convert(mode)
    expected = peer(**SMALL)(IMAGE, labels, return_tensors="np")["labels"]
    assert_identical(PROCESSOR(IMAGE, labels)["labels"], expected)
    path = tmp_path / "labels.tif"
    labels.save(path)
    for source in (path, str(path), path.read_bytes(), [[path]]):
        assert_identical(PROCESSOR(IMAGE, source)["labels"], expected)


def test_batches_of_maps() -> None:
    labels = noise((3, 30, 50))
    expected = peer(**SMALL)([IMAGE] * 3, labels, return_tensors="np")["labels"]
    for form in (labels, list(labels), torch.from_numpy(labels), [labels[:2], labels[2]]):
        assert_identical(PROCESSOR([IMAGE] * 3, form)["labels"], expected)


def test_labels_count_down() -> None:
    labels = np.array([[0, 1, 2], [150, 254, 255]])
    off = {"do_resize": False, "do_center_crop": False, "do_reduce_labels": True}
    expected = [[255, 0, 1], [149, 253, 255]]
    for dtype in (np.uint8, np.uint16, np.int32, np.float64):
        assert PROCESSOR(noise((2, 3, 3)), labels.astype(dtype), **off)["labels"][0].tolist() == expected
    mask = np.array([[True, False]])
    assert PROCESSOR(noise((1, 2, 3)), mask, **off)["labels"][0].tolist() == [[0, 255]]


def test_images_ignore_what_concerns_maps() -> None:
    plain = PROCESSOR(IMAGE).pixel_values
    assert torch.equal(PROCESSOR(IMAGE, do_reduce_labels=True).pixel_values, plain)
    assert "labels" not in PROCESSOR(IMAGE)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (noise((2, 30, 50)), "expected one segmentation map for each image, got 2 for 1 images"),
        ([], "expected at least one segmentation map, got an empty list"),
        (noise((1, 1, 30, 50)), "segmentation map 0: expected an array of 2 axes, or 3 for a batch"),
        (
            picture(30, 50),
            r"segmentation map 0: expected one class id per pixel, \(height, width\), got shape",
        ),
        (noise((30, 50), "float32"), "segmentation map 0: expected whole numbers as class ids"),
        (np.full((30, 50), np.nan), "segmentation map 0: expected whole numbers as class ids"),
        (np.full((30, 50), 256), r"expected class ids within \[0, 255\] to resize a map, .*, got 256"),
        (np.full((30, 50), -1), r"expected class ids within \[0, 255\] to resize a map, .*, got -1"),
        (np.zeros((0, 5), np.uint8), "segmentation map 0: expected at least one pixel"),
        (
            "no/such.png",
            r"segmentation map 0 \(no/such.png\): expected the path of an image file, got no such",
        ),
    ],
)
def test_refused_maps(maps: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        PROCESSOR(IMAGE, maps)


def test_large_ids_pass_without_resize() -> None:
    labels = np.full((30, 50), 1000)
    off = {"do_resize": False, "do_center_crop": False}
    assert PROCESSOR(noise((30, 50, 3)), labels, **off)["labels"].unique().tolist() == [1000]


def outputs(images: int = 2, dtype: torch.dtype = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(logits=torch.randn(images, 5, 8, 6, generator=generator).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("sizes", [None, [(17, 23), (9, 4)], torch.tensor([[17, 23], [9, 4]]), ([8, 6], (1, 1))])
def test_post_processing_as_in_transformers(sizes: Any, dtype: torch.dtype) -> None:
    ours = PROCESSOR.post_process_semantic_segmentation(outputs(dtype=dtype), sizes)
    theirs = peer().post_process_semantic_segmentation(outputs(dtype=dtype), sizes)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.int64
        assert torch.equal(one, other)


@pytest.mark.parametrize("sizes", [None, [(17, 23), (9, 4)]])
def test_scores(sizes: Any) -> None:
    ours = PROCESSOR.post_process_semantic_segmentation(outputs(), sizes, return_segmentation_scores=True)
    theirs = peer().post_process_semantic_segmentation(outputs(), sizes, return_segmentation_scores=True)
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(one, BatchFeature)
        assert torch.equal(one.segmentation, other.segmentation)
        assert torch.equal(one.segmentation_scores, other.segmentation_scores)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(4, 4)], "target_sizes: expected one size for each of 2 images, got 1"),
        (torch.ones(3, 2, dtype=torch.int64), "target_sizes: expected one size for each of 2 images, got 3"),
        ([(4, 4), 5], r"target_sizes\[1\]: expected two positive ints \(height, width\), got 5"),
        ([(4, 4), (5,)], r"target_sizes\[1\]: expected two positive ints \(height, width\), got \(5,\)"),
        ([(4, 0), (5, 5)], r"target_sizes\[0\]: expected two positive ints \(height, width\), got \(4, 0\)"),
        (
            torch.ones(2, 2),
            r"target_sizes\[0\]: expected two positive ints \(height, width\), got \[1.0, 1.0\]",
        ),
    ],
)
def test_refused_target_sizes(sizes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PROCESSOR.post_process_semantic_segmentation(outputs(), sizes)


@pytest.mark.parametrize("wrong", [(torch.ones(2, 5, 8, 6),), SimpleNamespace(logits=torch.ones(2, 5))])
def test_refused_outputs(wrong: Any) -> None:
    message = r"expected outputs with logits \(images, labels, height, width\), got (tuple|\(2, 5\))"
    with pytest.raises(TypeError, match=message):
        PROCESSOR.post_process_semantic_segmentation(wrong)
