"""AUROC of drawn test images, the same draw for every classifier, score and set: intervals of figures and of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.evaluation.ood.scoring import Scored

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


def _weights(count: int, generator: np.random.Generator, number: int) -> Floats:
    """How often each image comes; number -1 is the set as it is."""
    if number < 0:
        return np.ones(count)
    return np.bincount(generator.integers(count, size=max(1, count - 1)), minlength=count).astype(np.float64)
