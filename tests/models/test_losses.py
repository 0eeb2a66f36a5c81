"""Losses against transformers', by problem type, and labels that do not fit."""

from typing import Any

import pytest
import torch

from mobilevit_fast.models import MobileViTForSemanticSegmentation
from testing.pairs import CLASSIFICATION, SEGMENTATION, images, make_pair, tiny_config

CLASSIFICATION_CASES: dict[str, tuple[dict[str, Any], torch.Tensor]] = {
    "one label, inferred": ({"num_labels": 1}, torch.tensor([0.5, -1.0, 2.0])),
    "one label, column": ({"num_labels": 1}, torch.tensor([[0.5], [-1.0], [2.0]])),
    "several values": ({"problem_type": "regression"}, torch.linspace(-1, 1, 15).view(3, 5)),
    "class indices, inferred": ({}, torch.tensor([0, 4, 2])),
    "class indices, column": ({}, torch.tensor([[0], [4], [2]])),
    "class indices, one left out": ({}, torch.tensor([0, -100, 2])),
    "class indices, stated": ({"problem_type": "single_label_classification"}, torch.tensor([1, 1, 3])),
    "several labels, inferred": ({}, torch.tensor([[0.0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])),
    "several labels, stated": ({"problem_type": "multi_label_classification"}, torch.full((3, 5), 0.25)),
}


@pytest.mark.parametrize("case", CLASSIFICATION_CASES)
def test_classification_loss(case: str) -> None:
    options, labels = CLASSIFICATION_CASES[case]
    ours, theirs = make_pair(CLASSIFICATION, tiny_config(**options))
    pixel_values = images(3, 32, 32)
    got, expected = ours(pixel_values, labels=labels), theirs(pixel_values, labels=labels)
    assert got.loss.shape == ()
    torch.testing.assert_close(got.loss, expected.loss, rtol=1e-5, atol=0)
    assert torch.equal(got[0], got.loss)
    assert torch.equal(ours(pixel_values, labels=labels, return_dict=False)[0], got.loss)


def test_integers_that_transformers_refuses() -> None:
    """int32 class indices and 0/1 integers for several labels mean what they say."""
    ours, _ = make_pair(CLASSIFICATION, tiny_config())
    pixel_values, indices = images(3, 32, 32), torch.tensor([0, 4, 2])
    expected = ours(pixel_values, labels=indices).loss
    assert torch.equal(ours(pixel_values, labels=indices.int()).loss, expected)

    ours.config.problem_type = "multi_label_classification"
    labels = torch.eye(5)[:3]
    expected = ours(pixel_values, labels=labels).loss
    assert torch.equal(ours(pixel_values, labels=labels.long()).loss, expected)


def test_a_call_leaves_the_configuration_as_it_was() -> None:
    ours, _ = make_pair(CLASSIFICATION, tiny_config())
    ours(images(1, 32, 32), labels=torch.tensor([1]))
    assert ours.config.problem_type is None


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        (
            {},
            torch.tensor([1, 2]),
            r"of shape \(3,\) and an integer dtype for single_label_classification, got \(2,\)",
        ),
        (
            {},
            torch.zeros(3),
            r"of shape \(3, 5\) for multi_label_classification, got \(3,\) of torch\.float32",
        ),
        (
            {},
            torch.zeros(3, dtype=torch.uint8),
            r"for multi_label_classification, got \(3,\) of torch\.uint8",
        ),
        (
            {"problem_type": "single_label_classification"},
            torch.zeros(3),
            r"an integer dtype .*of torch\.float32",
        ),
        (
            {"problem_type": "regression"},
            torch.zeros(3, 4),
            r"of shape \(3, 5\) for regression, got \(3, 4\)",
        ),
        ({"num_labels": 1}, torch.zeros(4), r"of shape \(3,\) for regression, got \(4,\)"),
    ],
)
def test_wrong_labels_of_images(options: dict[str, Any], labels: torch.Tensor, message: str) -> None:
    ours, _ = make_pair(CLASSIFICATION, tiny_config(**options))
    with pytest.raises(ValueError, match=message):
        ours(images(3, 32, 32), labels=labels)


@pytest.mark.parametrize("ignore_index", [255, 3, -1])
@pytest.mark.parametrize("size", [(64, 64), (2, 2), (37, 50)])
def test_segmentation_loss(ignore_index: int, size: tuple[int, int]) -> None:
    ours, theirs = make_pair(SEGMENTATION, tiny_config(semantic_loss_ignore_index=ignore_index))
    labels = torch.arange(2 * size[0] * size[1]).view(2, *size) % 5
    labels[0, 0, 1] = labels[1, 1, 1] = ignore_index
    pixel_values = images(2, 64, 64)
    got, expected = ours(pixel_values, labels=labels), theirs(pixel_values, labels=labels)
    torch.testing.assert_close(got.loss, expected.loss, rtol=1e-5, atol=0)
    assert torch.equal(ours(pixel_values, labels=labels, return_dict=False)[0], got.loss)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.zeros(64, 64, dtype=torch.long),
            r"integer labels of shape \(2, height, width\), got \(64, 64\)",
        ),
        (torch.zeros(3, 64, 64, dtype=torch.long), r"of shape \(2, height, width\), got \(3, 64, 64\)"),
        (torch.zeros(2, 64, 64), r"expected integer labels .*of torch\.float32"),
    ],
)
def test_wrong_labels_of_pixels(labels: torch.Tensor, message: str) -> None:
    ours, _ = make_pair(SEGMENTATION, tiny_config())
    with pytest.raises(ValueError, match=message):
        ours(images(2, 64, 64), labels=labels)


def test_segmentation_of_one_class_has_no_loss() -> None:
    ours, theirs = make_pair(SEGMENTATION, tiny_config(num_labels=1))
    pixel_values, labels = images(1, 32, 32), torch.zeros(1, 32, 32, dtype=torch.long)
    assert ours(pixel_values).logits.shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="expected num_labels of at least 2 for a loss, got 1"):
        ours(pixel_values, labels=labels)
    with pytest.raises(ValueError, match="greater than one"):
        theirs(pixel_values, labels=labels)


def test_segmentation_needs_a_class() -> None:
    with pytest.raises(ValueError, match=r"MobileViTConfig\.num_labels: expected at least 1 for segmentation, got 0"):
        MobileViTForSemanticSegmentation(tiny_config(num_labels=0))
