"""Mean, covariance and the distance of Gaussians, against closed forms, numpy and scipy's square root in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from rediffuse.errors import DataError
from rediffuse.evaluation.fidelity import moments
from rediffuse.evaluation.fidelity.moments import Moments, frechet

GENERATOR = torch.Generator().manual_seed(0)


def drawn(count: int, width: int = 6, shift: float = 0.0) -> Tensor:
    mix = torch.randn(width, width, generator=GENERATOR, dtype=torch.float64)
    return torch.randn(count, width, generator=GENERATOR, dtype=torch.float64) @ mix + shift


def exactly(mean: list[float], variances: list[float]) -> Moments:
    """Moments of a Gaussian that is given, not sampled."""
    return Moments(count=11, mean=torch.tensor(mean).double(), scatter=10 * torch.diag(torch.tensor(variances).double()))


def test_the_distance_of_two_gaussians_is_the_closed_form() -> None:
    first, second = exactly([0, 1, 2], [1, 4, 9]), exactly([1, 1, 0], [4, 4, 1])
    assert first.frechet(second) == pytest.approx(1 + 4 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2, abs=1e-12)
    scaled = exactly([0, 1, 2], [9, 36, 81])
    assert first.frechet(scaled) == pytest.approx((1 + 4 + 9) * (3 - 1) ** 2)


def test_the_distance_is_that_of_scipys_square_root() -> None:
    first, second = drawn(50), drawn(40, shift=0.5)
    ours, theirs = np.cov(first.numpy(), rowvar=False), np.cov(second.numpy(), rowvar=False)
    gap = (first.mean(0) - second.mean(0)).numpy()
    wanted = gap @ gap + np.trace(ours + theirs - 2 * np.real(sqrtm(ours @ theirs)))
    assert frechet(first, second) == pytest.approx(wanted, rel=1e-9)
    assert frechet(second, first) == pytest.approx(wanted, rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_with_any_count() -> None:
    for count in (3, 5, 6, 7, 60):  # fewer images than dimensions too
        features = drawn(count)
        assert frechet(features, features.flip(0)) == pytest.approx(0, abs=1e-9)
        assert Moments.of(features).frechet(Moments.of(features)) == pytest.approx(0, abs=1e-9)


def test_few_images_have_the_distance_of_their_covariances() -> None:
    first, second = drawn(20, width=30), drawn(25, width=30, shift=0.2)
    assert frechet(first, second) == pytest.approx(Moments.of(first).frechet(Moments.of(second)), rel=1e-8)


def test_parts_merge_to_the_whole_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    features = drawn(101) + 1e3  # far from the origin: a sum of squares would lose what is wanted
    monkeypatch.setattr(moments, "ROWS", 7)
    whole = Moments.of(features)
    assert torch.allclose(whole.mean, features.mean(0), rtol=1e-14)
    assert torch.allclose(whole.covariance, features.T.cov(), rtol=1e-9)
    parts = [Moments.of(part) for part in features.split([1, 40, 60])]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        merged = parts[order[0]].merge(parts[order[1]]).merge(parts[order[2]])
        assert merged.count == 101
        assert torch.allclose(merged.covariance, whole.covariance, rtol=1e-9)


def test_sets_that_have_no_distance_are_refused() -> None:
    with pytest.raises(DataError, match="at least one row"):
        Moments.of(torch.zeros(0, 4))
    with pytest.raises(DataError, match="NaN"):
        Moments.of(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(DataError, match="at least two images, got 1"):
        frechet(torch.ones(1, 4), torch.ones(3, 4))
    with pytest.raises(DataError, match="4 and of 5 values"):
        frechet(torch.ones(3, 4), torch.ones(3, 5))
