"""The digits: real scans, in MNIST's proportions, in two fixed halves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rediffuse.data import digits
from rediffuse.errors import DataError


@pytest.fixture(scope="module")
def scans():
    return load_digits()


def grey(image) -> np.ndarray:
    pixels = np.asarray(image).astype(float)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    return pixels[..., 0]


def test_the_halves_are_stratified_and_apart(scans):
    train, test, whole = digits(8), digits(8, "test"), digits(8, "all")
    assert len(whole) == 1797
    assert set(train.ids) | set(test.ids) == set(whole.ids)
    assert not set(train.ids) & set(test.ids)
    assert all(0 <= a - b <= 1 for a, b in zip(train.counts(), test.counts(), strict=True))
    assert whole.labels == tuple(scans.target.tolist())
    assert whole.ids[1] == "digits/0001"
    assert train.classes == tuple("0123456789")
    assert train.flips is False


def test_the_halves_are_those_of_every_machine():
    """Published figures rest on this cut: it never changes."""
    rows = (3, 4, 5, 9, 13, 21, 22, 24, 25, 27, 29, 30)
    assert digits(8).ids[:12] == tuple(f"digits/{row:04d}" for row in rows)


def test_ink_is_white_in_mnists_frame(scans):
    """Mean over all scans: the outer 4/28 are black but for the soft edge of a cell, the inner 20/28 hold the ink."""
    pictures = np.stack([grey(example.image) for example in digits(56, "all")])
    assert pictures.shape == (1797, 56, 56)
    assert pictures.max() == 255
    border = np.ones((56, 56), dtype=bool)
    border[3:-3, 3:-3] = False
    assert pictures[:, border].max() <= 2
    inside = pictures[:, 8:48, 8:48].sum()
    assert inside / pictures.sum() > 0.96
    assert pictures.mean() == pytest.approx(
        scans.images.mean() * 255 / 16 * (20 / 28) ** 2, rel=0.04
    )  # ink is kept, but for what clipping adds


def test_each_picture_shows_its_scan(scans):
    """Shrunk back by averaging over the cells, an enlarged scan correlates with itself more than with any of 200 others."""
    images = digits(112, "all")
    small = np.stack([grey(images[row].image)[16:96, 16:96].reshape(8, 10, 8, 10).mean((1, 3)).ravel() for row in range(200)])
    likeness = np.corrcoef(small, scans.images[:200].reshape(200, -1))[:200, 200:]
    assert (likeness.argmax(1) == np.arange(200)).all()
    assert likeness.diagonal().min() > 0.97


@pytest.mark.parametrize("size", [8, 28, 64, 65])
def test_sizes(size):
    assert set(digits(size).sizes) == {(size, size)}


def test_bad_arguments():
    with pytest.raises(DataError, match="train, test or all, got 'val'"):
        digits(split="val")
    with pytest.raises(DataError, match="8 to 1024 pixels, got 4"):
        digits(4)
