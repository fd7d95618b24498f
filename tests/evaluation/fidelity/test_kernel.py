"""KID against a double loop in float64, and what unbiased means."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.fidelity.kernel import kid, mmd

GENERATOR = torch.Generator().manual_seed(0)
REAL, MADE = torch.randn(40, 5, generator=GENERATOR), torch.randn(30, 5, generator=GENERATOR) * 1.3 + 0.2


def loop(first: torch.Tensor, second: torch.Tensor) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / x.size + 1) ** 3)

    a, b = first.double().numpy(), second.double().numpy()
    own = [kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    other = [kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    return float(np.mean(own) + np.mean(other) - 2 * np.mean([kernel(x, y) for x in a for y in b]))


def test_the_estimate_is_that_of_a_double_loop() -> None:
    assert mmd(REAL, MADE) == pytest.approx(loop(REAL, MADE), rel=1e-10)
    whole = kid(REAL, MADE)
    assert (whole.value, whole.spread, whole.subsets, whole.size) == (mmd(REAL, MADE), None, 1, 40)


def test_subsets_are_seeded_and_lie_around_the_whole() -> None:
    found = kid(REAL, MADE, subsets=200, size=20)
    assert found == kid(REAL, MADE, subsets=200, size=20)
    assert found != kid(REAL, MADE, subsets=200, size=20, seed=1)
    assert found.spread is not None
    assert found.value == pytest.approx(mmd(REAL, MADE), abs=4 * found.spread / 200**0.5)
    assert kid(REAL, MADE, subsets=1, size=35).spread == 0  # the smaller set is taken whole


def test_sets_of_one_law_are_zero_apart_on_average_whatever_their_size() -> None:
    for count in (4, 40):
        found = [mmd(torch.randn(count, 3, generator=GENERATOR), torch.randn(count, 3, generator=GENERATOR)) for _ in range(800)]
        assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / 800**0.5)


def test_what_has_no_estimate_is_refused() -> None:
    with pytest.raises(DataError, match="at least two images on each side, got 40 and 1"):
        kid(REAL, MADE[:1])
    with pytest.raises(ConfigError, match="subsets"):
        kid(REAL, MADE, subsets=0)
