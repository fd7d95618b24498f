"""Intervals against scipy, closed forms and simulated coverage."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.statistics import Interval, bootstrap, paired_bootstrap, paired_t_interval, share, t_interval, verdict


@pytest.mark.parametrize("count", [2, 4, 9])
def test_t_interval_is_that_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(0.6, 0.1, count)
    ours = t_interval(list(values))
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert (ours.value, ours.low, ours.high) == pytest.approx((values.mean(), low, high), abs=1e-12)
    assert (ours.runs, ours.basis) == (count, "seeds")


def test_t_interval_of_four_seeds_by_hand() -> None:
    # mean 2.5, s = sqrt(5/3), t(.975, 3) = 3.182446
    found = t_interval([1.0, 2.0, 3.0, 4.0])
    assert found.high == pytest.approx(2.5 + 3.182446 * math.sqrt(5 / 3) / 2, abs=1e-5)


def test_one_value_has_no_interval() -> None:
    assert t_interval([0.5]) == Interval(value=0.5, low=None, high=None, runs=1, basis="none")


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_values_that_mean_nothing_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError):
        t_interval(values)


def test_level_outside_its_range() -> None:
    with pytest.raises(ConfigError, match="got 95"):
        t_interval([1.0, 2.0], level=95)


def test_t_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(0.0, 1.0, (2000, 5))
    inside = [
        found.low <= 0 <= found.high
        for found in (t_interval(list(row)) for row in draws)
        if found.low is not None and found.high is not None
    ]
    assert len(inside) == 2000
    assert abs(np.mean(inside) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_pairing_takes_out_what_the_arms_share() -> None:
    luck = np.random.default_rng(1).normal(0, 0.2, 6)
    gain = np.array([0.030, 0.034, 0.029, 0.031, 0.033, 0.032])
    found = paired_t_interval(list(0.5 + luck + gain), list(0.5 + luck))
    assert found.value == pytest.approx(gain.mean())
    assert found.low is not None
    assert found.low > 0.02
    with pytest.raises(DataError, match="6 and 5"):
        paired_t_interval(list(luck), list(luck[:5]))


def test_bootstrap_of_one_class_is_the_binomial_interval() -> None:
    # 400 images, 60 % right: the standard error of a share is sqrt(p (1 - p) / n).
    right = np.zeros(400)
    right[:240] = 1
    found = bootstrap(right, [0] * 400)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 400)
    assert found.value == pytest.approx(0.6)
    assert found.low == pytest.approx(0.6 - half, abs=0.006)
    assert found.high == pytest.approx(0.6 + half, abs=0.006)
    assert found.basis == "one training run"


def test_bootstrap_weighs_classes_not_images() -> None:
    labels = [0] * 90 + [1] * 10
    ours = np.array([1.0] * 90 + [0.0] * 10)
    assert bootstrap(ours, labels).value == pytest.approx(0.5)


def test_images_that_do_not_differ_are_no_certainty() -> None:
    """Twelve of twelve may be luck: draws have no width there, so the ends are Clopper and Pearson's of nothing seen in twelve."""
    right, labels = np.ones(12), [0] * 6 + [1] * 6
    exact = stats.binomtest(12, 12).proportion_ci(0.95)
    for found in (bootstrap(right, None), bootstrap(right, labels)):
        assert (found.value, found.low, found.high) == (1, pytest.approx(exact.low), 1)
    same = paired_bootstrap(right, right, labels)
    assert (same.value, same.low, same.high) == (0, pytest.approx(exact.low - 1), pytest.approx(1 - exact.low))
    halves = bootstrap(np.arange(12) < 6, labels)  # whichever half is wrong of what is unseen
    assert (halves.value, halves.low, halves.high) == (0.5, pytest.approx(exact.low - 0.5), pytest.approx(1.5 - exact.low))
    won = paired_bootstrap(right, 0 * right, labels)
    assert (won.value, won.high, verdict(won)) == (1, 1, "helps")
    uneven = bootstrap(right, [0] * 11 + [1])  # the image that is alone in its class weighs half
    assert uneven.low == pytest.approx(0.025 ** ((1 / 11 + 1) / 4))
    alone = bootstrap(np.ones(9_001), [0, *np.arange(1, 10).repeat(1000)])  # of the single image nothing is known
    assert alone.low == pytest.approx(1 - 0.975 / 10)
    right[0] = 0
    assert bootstrap(right, labels).high == 1


def test_images_alike_are_drawn_as_one() -> None:
    """10,000 images of two classes: by the image 4,000 draws would take 13 seconds and 300 MB; the interval is that of the closed form."""
    generator = np.random.default_rng(0)
    ours, labels = generator.random(10_000) < 0.8, np.arange(10_000) % 2
    tracemalloc.start()
    found = bootstrap(ours.astype(float), list(labels))
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 20 << 20
    spread = math.sqrt(sum(ours[labels == k].var() / 5000 for k in (0, 1))) / 2
    for end, sign in ((found.low, -1), (found.high, 1)):
        assert end == pytest.approx(found.value + sign * 1.96 * spread, abs=0.1 * spread)


def test_paired_bootstrap_covers_the_true_difference() -> None:
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), 40)
    truth = 0.1
    inside = 0
    for trial in range(300):
        theirs = (generator.random(160) < 0.5).astype(float)
        gains = generator.random(160) < truth / 0.5  # a wrong image turns right: P = .5 * .2 = .1
        ours = np.maximum(theirs, gains)
        found = paired_bootstrap(ours, theirs, list(labels), resamples=400, seed=trial)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth <= found.high
    assert inside / 300 > 0.90


def test_bootstrap_is_a_function_of_its_seed_and_names_its_runs() -> None:
    runs = (np.random.default_rng(0).random((3, 50)) < 0.5).astype(float)
    labels = [0, 1] * 25
    assert paired_bootstrap(runs, 1 - runs, labels, seed=1) == paired_bootstrap(runs, 1 - runs, labels, seed=1)
    assert paired_bootstrap(runs, 1 - runs, labels, seed=1) != paired_bootstrap(runs, 1 - runs, labels, seed=2)
    assert paired_bootstrap(runs, 1 - runs, labels).basis == "three training runs"
    with pytest.raises(DataError, match="one shape"):
        paired_bootstrap(runs, runs[:, :-1], labels)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.05, "helps"), (-0.05, -0.01, "hurts"), (-0.01, 0.05, "no evidence"), (0.0, 0.1, "no evidence"), (None, None, "no evidence")],
)
def test_verdict_follows_the_interval(low: float | None, high: float | None, expected: str) -> None:
    assert verdict(Interval(value=0.02, low=low, high=high)) == expected


def test_an_interval_survives_json() -> None:
    found = t_interval([0.1, 0.2, 0.4])
    assert Interval.from_json(found.to_json()) == found


def test_without_labels_all_images_are_drawn_alike() -> None:
    ours = np.random.default_rng(5).integers(0, 4, (1, 600)) / 3
    theirs = np.random.default_rng(6).integers(0, 3, (1, 600)) / 3
    found, one_class = paired_bootstrap(ours, theirs, None), paired_bootstrap(ours, theirs, [0] * 600)
    assert found.value == pytest.approx(one_class.value)
    half = 1.96 * (ours - theirs).std() / np.sqrt(600)
    for end, sign in ((found.low, -1), (found.high, 1), (one_class.low, -1)):
        assert end == pytest.approx(found.value + sign * half, abs=0.1 * half)
    assert bootstrap(ours, None).value == pytest.approx(float(ours.mean()))


def test_classes_of_one_image_are_drawn_as_images_are() -> None:
    """Within a class of one there is nothing to draw, and an interval of no width would follow."""
    ours = (np.random.default_rng(0).random(100) < 0.7).astype(float)
    alone, together = bootstrap(ours, list(range(100))), bootstrap(ours, None)
    assert (alone.low, alone.high) == pytest.approx((together.low, together.high), abs=0.02)


def test_a_share_has_an_exact_interval_also_where_all_or_none_are_right() -> None:
    none = share(np.zeros(100, dtype=bool))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 100))  # no success in n: (1 - p)^n = alpha / 2
    every = share(np.ones(100, dtype=bool))
    assert (every.low, every.high) == (pytest.approx(1 - none.high), 1)
    some = share(np.arange(60) < 45)
    for end, tail in ((some.low, stats.binom.sf(44, 60, some.low)), (some.high, stats.binom.cdf(45, 60, some.high))):
        assert 0 < end < 1
        assert tail == pytest.approx(0.025)
    assert some.basis == "one training run"


def test_few_test_images_say_nothing() -> None:
    """Three photos that all changed sides would have an interval without width, and a verdict."""
    ours, theirs = np.ones((1, 9)), np.zeros((1, 9))
    found = paired_bootstrap(ours, theirs, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert (found.value, found.low, found.high, verdict(found)) == (1.0, None, None, "no evidence")
    assert verdict(paired_bootstrap(np.ones((1, 10)), np.zeros((1, 10)), None)) == "helps"


@pytest.mark.parametrize(("classes", "images"), [(3, 4), (10, 2), (12, 1), (1, 30)])
def test_equal_classifiers_seldom_differ(classes: int, images: int) -> None:
    """With n of n images of each class drawn, one in six such tests found a difference; and with two of each ten classes one in five."""
    generator, labels = np.random.default_rng(0), np.repeat(np.arange(classes), images)
    false = 0
    for _ in range(300):
        ours, theirs = (generator.random((1, labels.size)) < 0.6 for _ in range(2))
        found = paired_bootstrap(ours, theirs, labels.tolist(), resamples=400)
        false += verdict(found) != "no evidence"
    assert false / 300 < 0.09  # .05, and three standard errors
