"""The numbers of randomized smoothing: from counts of classified draws to a radius, and from sigma to a denoiser's noise time.

References: Cohen, Rosenfeld, Kolter. ICML 2019, arXiv 1902.02918. Carlini et al. ICLR 2023, arXiv 2206.10550 (denoised smoothing).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.errors import ConfigError

ABSTAIN = -1
"""Stands where a class would: the draws do not tell which class is the most probable one."""


def lower_bound(counts: ArrayLike, draws: int, alpha: float) -> NDArray[np.float64]:
    """A probability that lies above this with a chance of at most alpha, whatever it is: one-sided Clopper-Pearson.

    Args:
        counts: successes among the draws, any shape.
        draws: N.
        alpha: chance of error, in (0, 1).
    Reference: arXiv 1902.02918, section 3.2.2 (LowerConfBound).
    """
    from scipy import special

    check_alpha(alpha)
    found = np.asarray(counts, dtype=np.int64)
    if draws < 1 or bool((found < 0).any() or (found > draws).any()):
        raise ConfigError(f"counts must lie between 0 and the number of draws, at least 1, got {found.tolist()} of {draws}")
    bound = special.betaincinv(np.maximum(found, 1), draws - found + 1, alpha)  # of no success at all it is 0
    return np.where(found == 0, 0.0, bound).astype(np.float64)


def radius(probability: ArrayLike, sigma: float) -> NDArray[np.float64]:
    """L2 distance on [0, 1] images within which the top class stays: sigma Phi^-1(p); 0 for p below a half.

    Args:
        probability: lower bounds on the top class's probability.
    Reference: arXiv 1902.02918, Eq. 3 with the other classes' bound 1 - p.
    """
    from scipy import special

    bound = np.asarray(probability, dtype=np.float64)
    return np.asarray(sigma * special.ndtri(np.maximum(bound, 0.5)), dtype=np.float64)


def ceiling(sigma: float, draws: int, alpha: float) -> float:
    """The largest radius that N draws can certify, all of them of one class: sigma Phi^-1(alpha^(1/N))."""
    from scipy import special

    check_alpha(alpha)
    return max(0.0, sigma * float(special.ndtri(alpha ** (1 / draws))))


def decide(selection: NDArray[Any], estimation: NDArray[Any], sigma: float, alpha: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classes and radii of images, of counts over two independent sets of draws.

    Args:
        selection: (B, K) how often each class was named among the N0 draws that choose the candidate.
        estimation: (B, K) the same among the N draws that measure it; no draw may be in both.
    Returns:
        (B,) class or ABSTAIN, and (B,) radius, 0 where it abstains.
    Reference: arXiv 1902.02918, algorithm CERTIFY.
    """
    candidate = selection.argmax(1)
    draws = int(estimation[0].sum()) if len(estimation) else 1
    bound = lower_bound(np.take_along_axis(estimation, candidate[:, None], 1)[:, 0], draws, alpha)
    known = bound >= 0.5
    return np.where(known, candidate, ABSTAIN).astype(np.int64), np.where(known, radius(bound, sigma), 0.0)


def noise_time(schedule: NoiseSchedule, sigma: float) -> int:
    """t*: the first index whose noise level is at least that of sigma on [0, 1] images, which is 2 sigma on [-1, 1].

    Reference: arXiv 2206.10550, section 3 (the closed form for the table at hand).
    """
    check_sigma(sigma)
    levels = schedule.ratio.double().cpu()
    last = float(levels[levels.isfinite()].max())
    if 2 * sigma > last:
        raise ConfigError(f"sigma must be at most {last / 2:.4g} for this denoiser, whose noise ends there, got {sigma:g}")
    return int((levels < 2 * sigma).sum())


def check_alpha(alpha: float) -> None:
    """Raise ConfigError unless this is a chance of error."""
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is a chance of error and must be in (0, 1), got {alpha}; the published one is 0.001")


def check_sigma(sigma: float) -> None:
    """Raise ConfigError unless this is a noise level."""
    if not (math.isfinite(sigma) and sigma > 0):
        raise ConfigError(f"sigma is a noise level on [0, 1] images and must be above 0, got {sigma}")
