"""Distances of two sets of features, written from the formulas in float64 with everything in memory: what ours is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Features = NDArray[np.float64]


def fid(real: Features, made: Features) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).

    Reference: Heusel et al., NeurIPS 2017, arXiv 1706.08500, Eq. 6.
    """
    first, second = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    return float(((real.mean(0) - made.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


def kid_of_all(real: Features, made: Features) -> float:
    """Unbiased squared MMD under (x.y / D + 1)^3, pair by pair. Reference: Binkowski et al., ICLR 2018, arXiv 1801.01401, Eq. 4."""
    width = real.shape[1]

    def within(features: Features) -> float:
        sums = [float(((features[k] @ np.delete(features, k, 0).T / width + 1) ** 3).sum()) for k in range(len(features))]
        return sum(sums) / (len(features) * (len(features) - 1))

    between = np.mean([((row @ made.T / width + 1) ** 3).mean() for row in real])
    return within(real) + within(made) - 2 * float(between)


def manifold_of_all(real: Features, made: Features, near: int = 3, wide: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage from distances that are taken coordinate by coordinate.

    References: Kynkaanniemi et al., NeurIPS 2019, arXiv 1904.06991, Eq. 1-2; Naeem et al., ICML 2020, arXiv 2002.09797, Eq. 3-4.
    """
    between = np.linalg.norm(real[:, None] - made[None], axis=-1)  # (real, made)
    in_wide = between <= _radii(real, wide)[:, None]
    return {
        "precision": float((between <= _radii(real, near)[:, None]).any(0).mean()),
        "recall": float((between <= _radii(made, near)[None]).any(1).mean()),
        "density": float(in_wide.sum() / (wide * len(made))),
        "coverage": float(in_wide.any(1).mean()),
    }


def _radii(features: Features, neighbours: int) -> NDArray[np.float64]:
    """(N,) distance to the k-th nearest other feature."""
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    radii: NDArray[np.float64] = np.sort(distances, axis=1)[:, neighbours - 1]
    return radii
