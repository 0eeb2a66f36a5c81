"""The pictures of digits and their split."""

import builtins
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mobilevit_fast.data.digit_images import load_digit_images


def test_every_picture_is_in_one_part() -> None:
    training, held_out = load_digit_images()
    assert sorted([*training.rows, *held_out.rows]) == list(range(1797))


def test_a_fifth_of_every_digit_is_held_out() -> None:
    training, held_out = load_digit_images()
    held = np.bincount(held_out.labels, minlength=10)
    total = held + np.bincount(training.labels, minlength=10)
    assert np.all(np.abs(held - total / 5) <= 0.5)


def test_the_split_is_the_one_that_the_checkpoint_was_trained_with() -> None:
    # Another split would put training pictures among the held-out ones without any other test noticing.
    _, held_out = load_digit_images()
    assert len(held_out.rows) == 359
    assert held_out.rows[:8].tolist() == [3, 7, 13, 19, 36, 38, 43, 48]
    assert int(held_out.rows.sum()) == 311827


def test_pictures_show_the_rows_of_the_data_set() -> None:
    data = load_digits()
    _, held_out = load_digit_images()
    for image, label, row in zip(held_out.images, held_out.labels, held_out.rows, strict=True):
        assert (image.mode, image.size) == ("L", (8, 8))
        assert label == data.target[row]
        np.testing.assert_allclose(np.asarray(image), data.images[row] * 255 / 16, atol=0.5)


def test_scikit_learn_is_asked_for_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = builtins.__import__

    def without_sklearn(name: str, *arguments: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return import_module(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(ImportError, match=r"scikit-learn, which is not installed .*pip install scikit-learn"):
        load_digit_images()
