"""How well a score tells known images from unknown ones: AUROC, AUPR in both directions, FPR at 95 % recall.

A score is high for known images and low for unknown ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import DataError

Scores = NDArray[np.float64]
RECALL = 95
"""Percent of the unknown images that FPR95 demands to be found."""


def auroc(known: NDArray[Any], unknown: NDArray[Any]) -> float:
    """Chance that a known image scores above an unknown one; a tie counts half.

    Args:
        known, unknown: (N,) and (M,) scores.
    Raises:
        DataError: no scores on a side, or one that is not finite.
    Reference: Mann and Whitney, Ann. Math. Stat. 18, 1947; the area under the ROC curve is U / (N M).
    """
    first, second = _checked(known, unknown)
    first.sort()
    below = np.searchsorted(first, second, side="left") + np.searchsorted(first, second, side="right")  # twice the known ones under each
    return float(1 - below.mean() / (2 * first.size))


def aupr_known(known: NDArray[Any], unknown: NDArray[Any]) -> float:
    """Average precision with the known images as positives, found from the highest score downwards."""
    first, second = _checked(known, unknown)
    return _average_precision(first, second)


def aupr_unknown(known: NDArray[Any], unknown: NDArray[Any]) -> float:
    """Average precision with the unknown images as positives, found from the lowest score upwards."""
    first, second = _checked(known, unknown)
    return _average_precision(-second, -first)


def fpr95(known: NDArray[Any], unknown: NDArray[Any]) -> float:
    """Share of known images that are raised as unknown when at least 95 % of the unknown ones are: unknown is positive, as in OpenOOD.

    Other papers take known as positive; their figure is that of exchanged, negated arguments.
    """
    first, second = _checked(known, unknown)
    found = -(-RECALL * second.size // 100)  # the fewest that reach the share, in whole numbers
    threshold = np.partition(second, found - 1)[found - 1]
    return float((first <= threshold).mean())


def _average_precision(positive: Scores, negative: Scores) -> float:
    """Sum over thresholds of (R_i - R_{i-1}) P_i; equal scores are one threshold."""
    values = np.concatenate([positive, negative])
    hits = np.concatenate([np.ones(positive.size), np.zeros(negative.size)])
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], hits[order]
    last = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    found = np.cumsum(hits)[last]
    return float(np.sum(np.diff(found, prepend=0) * found / (last + 1)) / positive.size)


def _checked(known: NDArray[Any], unknown: NDArray[Any]) -> tuple[Scores, Scores]:
    first, second = np.array(known, dtype=np.float64).ravel(), np.array(unknown, dtype=np.float64).ravel()
    if not first.size or not second.size:
        raise DataError(f"known and unknown images are both needed, got {first.size} and {second.size} scores")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("scores must be finite; a NaN has no rank")
    return first, second
