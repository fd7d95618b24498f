"""AUROC of drawn test images, the same draw for every classifier, score and set: intervals of figures and of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.evaluation.ood.scoring import Scored
from rediffuse.evaluation.statistics import FEW, MIN_IMAGES, Interval, basis_of_runs, ends, hidden

Floats = NDArray[np.float64]


class Ranked:
    """Known scores and those of unknown sets, sorted once, so that a draw of images costs no sort.

    Memory: 4 bytes a known image, 8 an unknown one.

    Args:
        known: (N,) scores; unknown: (M,) scores of each unknown set.
    """

    def __init__(self, known: NDArray[Any], unknown: Sequence[NDArray[Any]]) -> None:
        self.order = np.argsort(known).astype(np.int32)
        ranked = known[self.order]
        self.places = [tuple(np.searchsorted(ranked, each, side=side).astype(np.int32) for side in ("left", "right")) for each in unknown]

    def auroc(self, known: Floats, unknown: Sequence[Floats]) -> Floats:
        """(sets,) with these weights, (N,) and (M,) of each set, such as how often each image was drawn."""
        below = np.concatenate([[0.0], np.cumsum(known[self.order])])  # (N + 1,) weight of the known ones under each place
        found = [
            own @ (1 - (below[low] + below[high]) / (2 * below[-1])) / own.sum()
            for (low, high), own in zip(self.places, unknown, strict=True)
        ]
        return np.array(found)


def resampled_auroc(scored: Scored, resamples: int, seed: int = 0) -> tuple[Floats, Floats]:
    """AUROC of every unknown set, (models, sets, scores), and of as many drawn test sets, (resamples, models, sets, scores).

    Images are drawn with replacement within their set, n - 1 of n, so that small sets vary as much as they should; a draw is shared by all
    classifiers, so that differences are paired.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    known, unknown = scored.sets[0].values.numpy(), [part.values.numpy() for part in scored.sets[1:]]
    shape = (len(scored.models), len(unknown), len(scored.scores))
    pairs = list(np.ndindex(shape[0], shape[2]))
    ranked = {(model, score): Ranked(known[model, :, score], [own[model, :, score] for own in unknown]) for model, score in pairs}
    generator = np.random.default_rng(seed)
    value, drawn = np.zeros(shape), np.zeros((resamples, *shape))
    for number in range(-1, resamples):
        first = _weights(known.shape[1], generator, number)
        others = [_weights(part.shape[1], generator, number) for part in unknown]
        target = value if number < 0 else drawn[number]
        for (model, score), own in ranked.items():
            target[model, :, score] = own.auroc(first, others)
    return value, drawn


def interval(
    scored: Scored, sets: Sequence[int], value: float, drawn: Floats, *, level: float = 0.95, paired: bool = False, runs: int = 1
) -> Interval:
    """A mean AUROC, or a difference of two, with its percentiles over drawn test sets.

    Below `MIN_IMAGES` images in its smallest set it has none. Where a score parts all images, or two do it alike, draws have no width and
    would pass for certainty: the ends are then what as many unseen pairs of images as the smaller set can hide may change. With shares p of
    known and q of unknown images unlike those seen, none is among N and M with chance (1 - p)^N (1 - q)^M, so that all but
    (1 - p)(1 - q) >= miss^(1 / min(N, M)) of the pairs may be.

    Args:
        sets: places of the unknown sets behind it.
        drawn: (resamples,).
        level: coverage, in (0, 1).
        paired: a difference, in [-1, 1].
        runs: classifiers behind it.
    Reference: Clopper and Pearson, Biometrika 26, 1934 (0 of n).
    """
    known, unknown = len(scored.sets[0]), np.array([len(scored.sets[place + 1]) for place in sets])
    if min(known, *unknown) < MIN_IMAGES:
        return Interval(value=float(value), runs=runs, basis=FEW)
    unseen = max(hidden(np.array([known]), level), hidden(unknown, level))
    low, high = ends(drawn, float(value), (-1.0 if paired else 0.0, 1.0), unseen, level=level)
    return Interval(value=float(value), low=low, high=high, runs=runs, basis=basis_of_runs(runs))


def _weights(count: int, generator: np.random.Generator, number: int) -> Floats:
    """How often each image comes; number -1 is the set as it is."""
    if number < 0:
        return np.ones(count)
    return np.bincount(generator.integers(count, size=max(1, count - 1)), minlength=count).astype(np.float64)
