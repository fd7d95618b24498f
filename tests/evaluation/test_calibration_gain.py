"""Differences of calibration errors: what chance adds to either is neither reported as a gain nor lost as one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation import calibration_gain
from rediffuse.evaluation.calibration import BINS, Judgements, calibration_error
from rediffuse.evaluation.calibration_gain import METRICS, chance_bounds, paired_gain, score
from rediffuse.evaluation.statistics import verdict

SHARP, SOFT = (30, 0.5), (3, 1.5)
"""Beta laws of confidences: nearly all near 1, and spread."""


def judged(count: int, law: tuple[float, float], seed: int, sure: float = 0.0) -> Judgements:
    """Answers that are right as often as they say or, with `sure`, less often: by 4 sure c (1 - c)."""
    generator = np.random.default_rng(seed)
    said = np.clip(generator.beta(*law, count), 0.1, 1)
    right = generator.random(count) < said - 4 * sure * said * (1 - said)
    return Judgements(confidence=said, right=right, brier=(said - right) ** 2, surprise=-np.log(np.where(right, said, 1.02 - said)))


def true_error(law: tuple[float, float], sure: float) -> float:
    said = np.clip(np.random.default_rng(0).beta(*law, 1_000_000), 0.1, 1)
    place = np.ceil(said * BINS).astype(int)
    return float(np.abs(np.bincount(place, 4 * sure * said * (1 - said))).sum() / len(said))


@pytest.mark.parametrize(
    ("metric", "ours", "theirs"),
    [
        ("ece", (SHARP, 0.0), (SOFT, 0.0)),
        ("adaptive_ece", (SHARP, 0.0), (SOFT, 0.0)),
        ("ece", (SOFT, 0.1), (SHARP, 0.0)),
        ("adaptive_ece", (SOFT, 0.05), (SOFT, 0.1)),
    ],
)
def test_intervals_hold_the_true_difference(
    monkeypatch: pytest.MonkeyPatch, metric: str, ours: tuple[tuple[float, float], float], theirs: tuple[tuple[float, float], float]
) -> None:
    """40 sets of 600 images each; of 40 at 95 %, fewer than 34 happen once in 300. Bare percentiles hold the first pair's 0 never."""
    monkeypatch.setattr(calibration_gain, "RESAMPLES", 60)
    true = true_error(*ours) - true_error(*theirs)
    found = []
    for seed in range(40):
        pair = judged(600, ours[0], 2 * seed, ours[1]), judged(600, theirs[0], 2 * seed + 1, theirs[1])
        found.append(paired_gain([pair], metric))
        assert found[-1].value == pytest.approx(score(pair[0], metric) - score(pair[1], metric))
        assert found[-1].low is not None
        assert found[-1].high is not None
        assert found[-1].low <= found[-1].value <= found[-1].high
    assert sum((each.low or 0) <= true <= (each.high or 0) for each in found) >= 34
    if true == 0:
        assert np.mean([each.value for each in found]) < -0.02  # the error itself differs, by chance alone
        assert sum(verdict(each) != "no evidence" for each in found) <= 6


def test_a_real_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_gain, "RESAMPLES", 200)
    found = [paired_gain([(judged(4000, SOFT, 2 * seed, 0.1), judged(4000, SHARP, 2 * seed + 1))], "ece") for seed in range(3)]
    assert [verdict(each) for each in found] == ["helps"] * 3  # more of it, that is
    one = [paired_gain([(judged(4000, SOFT, 8, 0.1), judged(4000, SHARP, 9))] * runs, "ece") for runs in (1, 3)]
    assert one[1].basis == "three training runs"
    assert (one[1].low, one[1].high) == pytest.approx((one[0].low, one[0].high))


def test_several_runs_have_the_t_interval_and_what_chance_adds() -> None:
    pairs = [(judged(300, SOFT, seed), judged(300, SHARP, 100 + seed)) for seed in range(5)]
    gaps = [score(a, "ece") - score(b, "ece") for a, b in pairs]
    found, half = paired_gain(pairs, "ece"), stats.sem(gaps) * stats.t.ppf(0.975, 4)
    least, most = np.mean([chance_bounds(a.confidence, a.right) for a, _ in pairs], axis=0)
    their_least, their_most = np.mean([chance_bounds(b.confidence, b.right) for _, b in pairs], axis=0)
    assert found.value == pytest.approx(np.mean(gaps))
    assert found.low == pytest.approx(np.mean(gaps) - half - most + their_least)
    assert found.high == pytest.approx(np.mean(gaps) + half + their_most - least)
    assert (found.low or 0) < 0  # the t interval alone leaves 0 out
    assert np.mean(gaps) - half > 0


@pytest.mark.parametrize("equal_mass", [False, True])
def test_bounds_hold_what_chance_adds_in_the_mean(equal_mass: bool) -> None:
    """Where all gaps are 0 (there the larger bound is nine tenths of it), and where they are large, of which the true error is known."""
    for sure, true, share in ((0.0, 0.0, 0.85), (0.1, true_error(SOFT, 0.1), 1.0)):
        each = [judged(800, SOFT, seed, sure) for seed in range(60)]
        added = np.mean([calibration_error(one.confidence, one.right, equal_mass=equal_mass) for one in each]) - true
        least, most = np.mean([chance_bounds(one.confidence, one.right, equal_mass=equal_mass) for one in each], axis=0)
        assert least < share * added < most
    said: NDArray[np.float64] = np.full(1000, 0.7)
    assert chance_bounds(said, np.zeros(1000, dtype=bool)) == pytest.approx((0, 0), abs=1e-12)


def test_the_folded_normal_is_scipys() -> None:
    mean, deviation = np.array([0.0, 0.4, 2.0, 7.0, 3.0]), np.array([1.0, 2.0, 1.5, 1.0, 0.0])
    found = calibration_gain._folded(mean, deviation)
    assert found[:4] == pytest.approx(stats.foldnorm.mean(mean[:4] / deviation[:4], scale=deviation[:4]) - mean[:4], abs=1e-9)
    assert found[4] == 0


def test_other_figures_are_means_of_images() -> None:
    ours, theirs = judged(400, SOFT, 0), judged(400, SHARP, 1)
    for metric, own in (("brier", ours.brier - theirs.brier), ("nll", ours.surprise - theirs.surprise)):
        found = paired_gain([(ours, theirs)], metric)
        assert found.value == pytest.approx(own.mean())
        assert (found.high or 0) - (found.low or 0) == pytest.approx(2 * 1.96 * stats.sem(own), rel=0.15)
    assert paired_gain([(ours, theirs)] * 4, "accuracy").value == pytest.approx(ours.right.mean() - theirs.right.mean())


def test_what_cannot_be_paired() -> None:
    ours = judged(20, SOFT, 0)
    with pytest.raises(ConfigError, match=f"metric must be one of {', '.join(METRICS)}, got 'fid'"):
        paired_gain([(ours, ours)], "fid")
    with pytest.raises(DataError, match=r"runs on the same images, got \[\(20, 9\)\]"):
        paired_gain([(ours, judged(9, SOFT, 0))], "ece")
    with pytest.raises(DataError, match="runs on the same images"):
        paired_gain([], "ece")
    few = paired_gain([(judged(9, SOFT, 0), judged(9, SHARP, 0))], "ece")
    assert (few.low, few.basis) == (None, "too few test images")
