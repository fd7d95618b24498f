"""Figures of telling known from unknown, against scikit-learn and a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from rediffuse.errors import DataError
from rediffuse.evaluation.ood.metrics import aupr_known, aupr_unknown, auroc, fpr95

values = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=40)  # few values: ties everywhere


def slow_fpr95(known: np.ndarray, unknown: np.ndarray) -> float:
    """Try every threshold, from the lowest, until 19 of 20 unknown images lie under it."""
    for threshold in sorted(unknown):
        if 20 * int((unknown <= threshold).sum()) >= 19 * unknown.size:
            return float((known <= threshold).mean())
    raise AssertionError


@settings(max_examples=40)
@given(values, values)
def test_equal_scikit_learn_ties_and_all(first: list[float], second: list[float]) -> None:
    known, unknown = np.array(first), np.array(second)
    both, truth = np.concatenate([known, unknown]), np.repeat([1, 0], [known.size, unknown.size])
    assert auroc(known, unknown) == pytest.approx(roc_auc_score(truth, both), abs=1e-12)
    assert aupr_known(known, unknown) == pytest.approx(average_precision_score(truth, both), abs=1e-12)
    assert aupr_unknown(known, unknown) == pytest.approx(average_precision_score(1 - truth, -both), abs=1e-12)
    assert fpr95(known, unknown) == slow_fpr95(known, unknown)
    false, true, _ = roc_curve(1 - truth, -both, drop_intermediate=False)
    assert fpr95(known, unknown) == pytest.approx(false[np.argmax(true >= 0.95 - 1e-12)])


def test_figures_of_two_gaussians() -> None:
    from scipy.stats import norm

    grid = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    assert auroc(grid + 1.5, grid) == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=1e-3)
    assert fpr95(grid + 1.5, grid) == pytest.approx(norm.cdf(norm.ppf(0.95) - 1.5), abs=1e-3)


def test_neither_order_nor_a_growing_map_changes_a_figure() -> None:
    generator = np.random.default_rng(0)
    known, unknown = generator.normal(1, 1, 300), generator.normal(0, 1, 200)
    for figure in (auroc, aupr_known, aupr_unknown, fpr95):
        value = figure(known, unknown)
        assert figure(known[::-1], generator.permutation(unknown)) == pytest.approx(value, abs=1e-12)
        assert figure(np.exp(known), np.exp(unknown)) == pytest.approx(value, abs=1e-12)
    assert auroc(unknown, known) == pytest.approx(1 - auroc(known, unknown))


def test_what_has_no_rank_is_refused() -> None:
    with pytest.raises(DataError, match="3 and 0 scores"):
        auroc(np.ones(3), np.ones(0))
    with pytest.raises(DataError, match="finite"):
        fpr95(np.array([1.0, np.nan]), np.ones(2))
