"""Distance of two sets of features under a polynomial kernel (KID): unbiased, so small sets may be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rediffuse.errors import ConfigError, DataError

SUBSETS = 100
SUBSET = 1000


@dataclass(frozen=True, kw_only=True)
class Kid:
    """Kernel distance.

    Attributes:
        value: mean over subsets; it may fall below 0, because it is unbiased.
        spread: standard deviation over subsets, as published beside it; None for one estimate of all images. Subsets overlap where sets
            are small, so spread / sqrt(subsets) is no error of the value.
        subsets, size: how many subsets of at most how many images of each set; 1 and the larger set's count for one estimate of all images.
    """

    value: float
    spread: float | None
    subsets: int
    size: int


def mmd(first: Tensor, second: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of features (N, D), (M, D) under k(x, y) = (x.y / D + 1)^3, in float64.

    Memory N^2 + M^2 + N M values: for subsets. Reference: Gretton et al., JMLR 13, 2012, Eq. 3; the kernel is KID's.
    """
    if min(len(first), len(second)) < 2:
        raise DataError(f"a kernel distance needs at least two images on each side, got {len(first)} and {len(second)}")
    ours, theirs = first.double(), second.double()
    return _within(ours) + _within(theirs) - 2 * float(_kernel(ours, theirs).mean())


def kid(real: Tensor, made: Tensor, *, subsets: int = SUBSETS, size: int = SUBSET, seed: int = 0) -> Kid:
    """Mean of `mmd` over random subsets. Choose it over FID for few images: its mean does not depend on their number.

    Args:
        real, made: (N, D), (M, D) features, in memory or mapped from a file.
        subsets: how many; 100 is published.
        size: images of each set in one, drawn without replacement; 1,000 is published. Smaller sets are taken whole.
        seed: of the draws.
    Reference: Binkowski et al., ICLR 2018, arXiv 1801.01401, section 4.
    """
    if subsets < 1 or size < 2:
        raise ConfigError(f"subsets must be at least 1 and their size at least 2, got {subsets} and {size}")
    if max(len(real), len(made)) <= size:
        return Kid(value=mmd(real, made), spread=None, subsets=1, size=max(len(real), len(made)))
    generator, found = np.random.default_rng(seed), []
    for _ in range(subsets):
        ours, theirs = (_drawn(features, size, generator) for features in (real, made))
        found.append(mmd(ours, theirs))
    return Kid(value=float(np.mean(found)), spread=float(np.std(found)), subsets=subsets, size=size)


def _drawn(features: Tensor, size: int, generator: np.random.Generator) -> Tensor:
    rows = generator.choice(len(features), size=min(size, len(features)), replace=False)
    return features[torch.from_numpy(np.sort(rows))]  # sorted: a mapped file is read from front to back


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second.T / first.shape[1] + 1) ** 3


def _within(features: Tensor) -> float:
    kernel, count = _kernel(features, features), len(features)
    return float((kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1)))
