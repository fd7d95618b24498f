"""Mean and covariance of features, a part at a time, and the distance between the Gaussians that have them (FID)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.errors import DataError

ROWS = 8192
"""Features that are taken to float64 at a time: 32 MB at 512 dimensions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Count, mean and scatter of features in float64; parts of a set are merged in any order.

    Memory is D x D x 8 bytes whatever the count: 2 MB at 512 dimensions, 34 MB at Inception's 2,048.

    Attributes:
        count: features seen.
        mean: (D,) float64.
        scatter: (D, D) float64, sum of (f - mean)(f - mean)^T.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """From features (N, D) of any floating type, in memory or mapped from a file. Raises DataError for none, or NaN."""
        if features.ndim != 2 or not len(features):
            raise DataError(f"features must be (N, D) with at least one row, got {tuple(features.shape)}")
        found: Moments | None = None
        for part in features.split(ROWS):
            rows = part.double()
            mean = rows.mean(0)
            own = cls(count=len(rows), mean=mean, scatter=(rows - mean).T @ (rows - mean))
            found = own if found is None else found.merge(own)
        if found is None or not bool(found.scatter.isfinite().all()):
            raise DataError("features are NaN or infinite; the network that made them overflowed, try float32")
        return found

    def merge(self, other: Moments) -> Moments:
        """Of both sets together. Reference: Chan, Golub, LeVeque, The American Statistician 37, 1983, Eq. 2.1."""
        if self.mean.shape != other.mean.shape:
            raise DataError(f"features of {len(self.mean)} and of {len(other.mean)} values have no common mean; use one extractor")
        count, gap = self.count + other.count, other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + gap * (other.count / count),
            scatter=self.scatter + other.scatter + torch.outer(gap, gap) * (self.count * other.count / count),
        )

    @property
    def covariance(self) -> Tensor:
        """(D, D) float64, unbiased. Raises DataError for fewer than two features."""
        if self.count < 2:
            raise DataError(f"a covariance needs at least two images, got {self.count}")
        return self.scatter / (self.count - 1)

    def frechet(self, other: Moments) -> float:
        """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), at least 0: FID where the features are those of the published Inception network.

        tr (C1 C2)^1/2 is the sum of the singular values of C1^1/2 C2^1/2: no square root of a matrix that is not symmetric, and a
        covariance without full rank (fewer images than dimensions) costs no accuracy.

        Reference: Heusel et al., NeurIPS 2017, arXiv 1706.08500, Eq. 6.
        """
        if self.mean.shape != other.mean.shape:
            raise DataError(f"features of {len(self.mean)} and of {len(other.mean)} values are no distance apart; use one extractor")
        first, second = self.covariance, other.covariance
        cross = torch.linalg.svdvals(_root(first) @ _root(second)).sum()
        return max(0.0, float((self.mean - other.mean).square().sum() + first.trace() + second.trace() - 2 * cross))


def frechet(first: Tensor, second: Tensor) -> float:
    """`Moments.frechet` of two sets of features (N, D), (M, D).

    Where both have fewer images than dimensions, the singular values are those of the (N, M) products of centred features: cheap for
    one class of many.
    """
    if max(len(first), len(second)) >= first.shape[1] or first.shape[1:] != second.shape[1:]:
        return Moments.of(first).frechet(Moments.of(second))
    ours, theirs = first.double(), second.double()
    if min(len(ours), len(theirs)) < 2:
        raise DataError(f"a covariance needs at least two images, got {min(len(ours), len(theirs))}")
    gap = ours.mean(0) - theirs.mean(0)
    ours = (ours - ours.mean(0)) / (len(ours) - 1) ** 0.5
    theirs = (theirs - theirs.mean(0)) / (len(theirs) - 1) ** 0.5
    cross = torch.linalg.svdvals(ours @ theirs.T).sum()
    return max(0.0, float(gap.square().sum() + ours.square().sum() + theirs.square().sum() - 2 * cross))


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root; eigenvalues within rounding of 0 are 0."""
    values, vectors = torch.linalg.eigh(covariance)
    values = torch.where(values > values[-1] * len(values) * torch.finfo(values.dtype).eps, values, 0.0)
    root: Tensor = (vectors * values.sqrt()) @ vectors.T
    return root
