"""How much one classifier's calibration differs from another's on the same images, with an interval that chance does not tilt.

An error of bins is a sum of |gaps|, so chance adds to it (`calibration.chance_error`): more where confidences are spread, less where they
are near 1, and nothing where a gap is large. Two true classifiers thus have different errors, however many images there are, and resampled
images add the same again. What chance may have added to either is therefore bounded, bin by bin, and the interval is widened by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.calibration import BINS, Judgements, calibration_error, places_of
from rediffuse.evaluation.statistics import FEW, MIN_IMAGES, MIN_SEEDS, Interval, basis_of_runs, paired_bootstrap, paired_t_interval

METRICS = ("accuracy", "ece", "adaptive_ece", "brier", "nll")
BINNED = ("ece", "adaptive_ece")
RESAMPLES = 1000


def score(found: Judgements, metric: str, bins: int = BINS) -> float:
    """One of METRICS."""
    if metric in BINNED:
        return calibration_error(found.confidence, found.right, bins=bins, equal_mass=metric == "adaptive_ece")
    return float({"accuracy": found.right, "brier": found.brier, "nll": found.surprise}[metric].mean())


def chance_bounds(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = BINS, equal_mass: bool = False
) -> tuple[float, float]:
    """(least, most) of what chance has added to a calibration error, in expectation.

    A bin's sum of gaps is about normal, with its true sum mu and a deviation s; |sum| exceeds |mu| by
    s sqrt(2/pi) exp(-mu²/2s²) - 2 |mu| Phi(-|mu|/s) in the mean (the folded normal's), which falls with |mu|: most for a true sum one
    deviation nearer to 0 than what was found, least for one that is as much farther away. s is the larger of what the bin's gaps show and
    what its confidences say, since few images that are all right show none. Where every true sum is 0, "most" is nine tenths of what chance
    adds, in the mean; the intervals that it widens hold the truth (tests/evaluation/test_calibration_gain.py).

    Args:
        confidence, right, bins, equal_mass: as in `calibration.reliability`.
    Reference: Leone, Nelson, Nottingham, Technometrics 3, 1961 (the folded normal distribution).
    """
    place, _ = places_of(confidence, bins, equal_mass)
    gaps = right.astype(np.float64) - confidence
    weights = (np.ones_like(gaps), gaps, gaps**2, confidence * (1 - confidence))
    count, total, squares, said = (np.bincount(place, weights=each, minlength=bins) for each in weights)
    shown = (squares - total**2 / np.maximum(count, 1)) * count / np.maximum(count - 1, 1)
    deviation = np.sqrt(np.maximum(np.maximum(shown, said), 0))
    ends = (np.abs(total) + deviation, np.maximum(np.abs(total) - deviation, 0))
    least, most = (float(_folded(end, deviation).sum() / len(gaps)) for end in ends)
    return least, most


def _folded(mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """E|X| - |mean| of a normal X; mean at least 0."""
    from scipy import stats

    apart = np.divide(mean, deviation, out=np.full_like(mean, np.inf), where=deviation > 0)
    near: NDArray[np.float64] = deviation * math.sqrt(2 / math.pi) * np.exp(-(apart**2) / 2)
    far: NDArray[np.float64] = 2 * mean * stats.norm.cdf(-apart)
    return np.maximum(near - far, 0)


def paired_gain(pairs: Sequence[tuple[Judgements, Judgements]], metric: str, *, bins: int = BINS, seed: int = 0) -> Interval:
    """A figure of one classifier minus that of another on the same images, the mean over pairs of runs.

    From `statistics.MIN_SEEDS` runs on the t interval over them, else over images (1,000 resamples of n - 1; none below
    `statistics.MIN_IMAGES`). That of an error of bins holds besides what chance may have added to either, see `chance_bounds`.

    Args:
        pairs: (ours, theirs) of each run, of the same images.
        metric: accuracy, ece, adaptive_ece, brier or nll.
    """
    if metric not in METRICS:
        raise ConfigError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if not pairs or len({len(part) for pair in pairs for part in pair}) > 1:
        raise DataError(f"a paired difference needs runs on the same images, got {[tuple(map(len, pair)) for pair in pairs]}")
    if metric == "accuracy" and len(pairs) < MIN_SEEDS:
        ours, theirs = (np.stack([part.right for part in side]) for side in zip(*pairs, strict=True))
        return paired_bootstrap(ours, theirs, None, seed=seed)
    if len(pairs) >= MIN_SEEDS:
        first, second = ([score(part, metric, bins) for part in side] for side in zip(*pairs, strict=True))
        found = paired_t_interval(first, second)
    else:
        found = _over_images(pairs, metric, bins, seed)
    return _with_chance(found, pairs, metric, bins) if metric in BINNED else found


def _over_images(pairs: Sequence[tuple[Judgements, Judgements]], metric: str, bins: int, seed: int) -> Interval:
    """Percentiles of resampled images around the difference: what resampling adds to an error of bins is taken off."""
    images, generator = len(pairs[0][0]), np.random.default_rng(seed)

    def gap(rows: NDArray[np.int64]) -> float:
        return float(np.mean([score(a.index(rows), metric, bins) - score(b.index(rows), metric, bins) for a, b in pairs]))

    value = gap(np.arange(images))
    if images < MIN_IMAGES:
        return Interval(value=value, runs=len(pairs), basis=FEW)
    drawn = np.asarray([gap(generator.integers(0, images, images - 1)) for _ in range(RESAMPLES)])
    low, high = value + np.quantile(drawn, [0.025, 0.975]) - drawn.mean()
    return Interval(value=value, low=float(low), high=float(high), runs=len(pairs), basis=basis_of_runs(len(pairs)))


def _with_chance(found: Interval, pairs: Sequence[tuple[Judgements, Judgements]], metric: str, bins: int) -> Interval:
    """The interval where chance has added most to ours and least to theirs, to that where it is the other way round."""
    if found.low is None or found.high is None:
        return found
    equal_mass = metric == "adaptive_ece"
    (least, most), (their_least, their_most) = (
        np.mean([chance_bounds(part.confidence, part.right, bins=bins, equal_mass=equal_mass) for part in side], axis=0)
        for side in zip(*pairs, strict=True)
    )
    low, high = found.low - float(most - their_least), found.high + float(their_most - least)
    return replace(found, low=min(low, found.value), high=max(high, found.value))
