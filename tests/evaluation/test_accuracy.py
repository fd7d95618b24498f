"""Accuracy against scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from rediffuse.errors import DataError
from rediffuse.evaluation.accuracy import Accuracy, measure


def test_every_figure_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 5, 300)
    guessed = np.where(generator.random(300) < 0.6, truth, generator.integers(0, 5, 300))
    found = measure(guessed.tolist(), truth.tolist(), list("abcde"))
    assert found.top1 == pytest.approx(metrics.accuracy_score(truth, guessed))
    assert found.mean_per_class == pytest.approx(metrics.balanced_accuracy_score(truth, guessed))
    assert np.array_equal(found.counts, metrics.confusion_matrix(truth, guessed))
    assert found.images == 300


def test_a_class_without_test_images_is_left_out_of_the_mean() -> None:
    found = measure([0, 0, 1, 2], [0, 0, 0, 1], ["a", "b", "c"])
    assert found.per_class == (2 / 3, 0.0, None)
    assert found.mean_per_class == pytest.approx(1 / 3)


def test_it_survives_json() -> None:
    found = measure([0, 1, 1], [0, 1, 0], ["a", "<b>"])
    assert Accuracy.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("guessed", "truth", "said"), [([], [], "at least 1"), ([0], [0, 1], "one length"), ([3], [0], "index 3"), ([0], [-1], "index -1")]
)
def test_what_cannot_be_counted(guessed: list[int], truth: list[int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        measure(guessed, truth, ["a", "b"])


def test_what_is_held_and_written_grows_with_the_images_not_with_the_classes() -> None:
    """21,841 classes are those of ImageNet-21k; their matrix would be 477 million numbers."""
    classes = [f"class {place}" for place in range(21_841)]
    found = measure([5, 5, 20_000], [5, 7, 20_000], classes)
    assert found.cells == ((5, 5, 1), (7, 5, 1), (20_000, 20_000, 1))
    assert (found.images, found.shown, found.top1, found.mean_per_class) == (3, 3, 2 / 3, 2 / 3)
    told = found.to_json()
    assert "confusion" not in told
    assert Accuracy.from_json(json.loads(json.dumps(told))) == found
    few = measure([0, 1, 1], [0, 1, 0], ["a", "b"])
    assert few.to_json()["confusion"] == [[1, 1], [0, 1]]
    assert Accuracy.from_json(few.to_json()) == few
