"""Curves: labels that do not touch, marks for what is there."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.reports.made_up import comparison

from rediffuse.reports.figures import accuracy_curves, spread


def test_labels_stand_apart_and_move_as_little_as_they_must() -> None:
    assert spread([1.0, 5.0, 9.0], 2.0) == [1.0, 5.0, 9.0]
    assert spread([5.0, 5.0], 2.0) == [4.0, 6.0]
    found = spread([1.0, 1.5, 2.0, 9.0], 2.0)
    assert found == pytest.approx([-0.5, 1.5, 3.5, 9.0])


def test_labels_never_touch_wherever_they_begin() -> None:
    for seed in range(50):
        places = sorted(np.random.default_rng(seed).uniform(0, 10, 4).tolist())
        found = spread(places, 1.5)
        assert all(late - early >= 1.5 - 1e-9 for early, late in pairwise(found))
        assert sum(found) == pytest.approx(sum(places))


def test_a_drawing_is_a_function_of_the_comparison() -> None:
    def share(cell: object) -> float:
        return 0.5

    first, again = (accuracy_curves(comparison(share), "scratch") for _ in range(2))
    assert first == again
    assert first is not None
    assert first.startswith("<svg")
    assert "photos of each class" in first
    for name in ("Standard", "Real Guidance", "DA-Fusion"):
        assert f">{name}<" in first


def test_nothing_is_drawn_of_nothing() -> None:
    assert accuracy_curves(comparison(lambda cell: None), "scratch") is None
    only_pixels = comparison(lambda cell: 0.5 if cell.arm == "pixels" else None, arms=("pixels", "standard"))
    assert accuracy_curves(only_pixels, "scratch") is None


def test_one_number_of_shots_is_drawn_too() -> None:
    assert accuracy_curves(comparison(lambda cell: 0.5, shots=(4,), seeds=1), "scratch") is not None
