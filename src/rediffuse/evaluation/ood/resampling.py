"""AUROC of drawn test images, the same draw for every classifier, score and set: intervals of figures and of their differences."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.evaluation.ood.scoring import Scored

Floats = NDArray[np.float64]


class Ranked:
    """A pair of known and unknown scores, sorted once, so that a draw of images costs no sort.

    Args:
        known, unknown: (N,) and (M,) scores.
    """

    def __init__(self, known: NDArray[Any], unknown: NDArray[Any]) -> None:
        self.order = np.argsort(known)
        self.low = np.searchsorted(known[self.order], unknown, side="left")
        self.high = np.searchsorted(known[self.order], unknown, side="right")

    def auroc(self, known: Floats, unknown: Floats) -> float:
        """With these weights (N,) and (M,), such as how often each image was drawn."""
        below = np.concatenate([[0.0], np.cumsum(known[self.order])])  # (N + 1,) weight of the known ones under each place
        return float(unknown @ (1 - (below[self.low] + below[self.high]) / (2 * below[-1])) / unknown.sum())


def resampled_auroc(scored: Scored, resamples: int, seed: int = 0) -> tuple[Floats, Floats]:
    """AUROC of every unknown set, (models, sets, scores), and of as many drawn test sets, (resamples, models, sets, scores).

    Images are drawn with replacement within their set; a draw is shared by all classifiers, so that differences are paired.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    known, unknown = scored.sets[0].values.numpy(), [part.values.numpy() for part in scored.sets[1:]]
    shape = (len(scored.models), len(unknown), len(scored.scores))
    ranked = {place: Ranked(known[place[0], :, place[2]], unknown[place[1]][place[0], :, place[2]]) for place in np.ndindex(*shape)}
    generator = np.random.default_rng(seed)
    value, drawn = np.zeros(shape), np.zeros((resamples, *shape))
    for number in range(-1, resamples):
        first = _weights(known.shape[1], generator, number)
        others = [_weights(part.shape[1], generator, number) for part in unknown]
        target = value if number < 0 else drawn[number]
        for place, pair in ranked.items():
            target[place] = pair.auroc(first, others[place[1]])
    return value, drawn


def _weights(count: int, generator: np.random.Generator, number: int) -> Floats:
    """How often each image comes; number -1 is the set as it is."""
    return np.ones(count) if number < 0 else np.bincount(generator.integers(count, size=count), minlength=count).astype(np.float64)
