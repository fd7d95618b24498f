"""How the manifolds of two sets of features cover each other: precision, recall, density, coverage.

A set's manifold is the union of balls around its features, each as wide as the distance to the k-th nearest other feature of the set.

Distances are made in blocks of `ROWS` x `COLUMNS` in float64 (32 MB), so one set of a million features of 512 dimensions, compared with
itself, fits in 4 GB: 2.05 GB of features as float32 (1.02 GB as float16), 0.02 GB of radii, and blocks under 0.3 GB. Two such sets in
memory are 4.1 GB before any work. A set that is mapped from a file needs no memory of its own, since its pages can be given back; that was
not measured. Time is that of three N x M x D products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.errors import ConfigError, DataError

PRECISION_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
ROWS = 1024
COLUMNS = 4096


@dataclass(frozen=True, kw_only=True)
class Manifold:
    """Figures of made beside real features.

    Attributes:
        precision: share of made features within the real manifold: fidelity.
        recall: share of real features within the made manifold: diversity.
        density: how many real balls a made feature lies in, over k; not bound by 1. Less moved by outliers than precision.
        coverage: share of real balls that hold a made feature. Less moved by outliers than recall.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(
    real: Tensor,
    made: Tensor,
    *,
    neighbours: int = PRECISION_NEIGHBOURS,
    density_neighbours: int = DENSITY_NEIGHBOURS,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Manifold:
    """Precision, recall, density and coverage in one pass over the distances.

    Args:
        real, made: (N, D), (M, D) features, in memory or mapped from a file. Recall and precision want N and M of one size.
        neighbours: k of precision and recall; 3 is published.
        density_neighbours: k of density and coverage; 5 is published.
        device, dtype: where and in which numbers distances are made; float32 is much faster on most accelerators.
    Raises:
        DataError: a set with no more than k features.
    References: Kynkaanniemi et al., NeurIPS 2019, arXiv 1904.06991, Eq. 1-2; Naeem et al., ICML 2020, arXiv 2002.09797, Eq. 3-4.
    """
    _check(real, made, neighbours, density_neighbours)
    places = _Places(centre=_mean(real), device=torch.device(device), dtype=dtype)
    near, wide = places.radii(real, (neighbours, density_neighbours))
    (own,) = places.radii(made, (neighbours,))
    balls, inside = 0, torch.zeros(len(made), dtype=torch.bool)
    recalled, covered = torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    for start in range(0, len(made), ROWS):
        queries = slice(start, start + ROWS)
        x = places.take(made[queries])
        for begin in range(0, len(real), COLUMNS):
            columns = slice(begin, begin + COLUMNS)
            distances = squared_distances(x, places.take(real[columns]))  # (m, n)
            inside[queries] |= (distances <= places.ball(near[columns])).any(1).cpu()
            hits = distances <= places.ball(wide[columns])
            balls += int(hits.sum())
            covered[columns] |= hits.any(0).cpu()
            recalled[columns] |= (distances <= places.ball(own[queries])[:, None]).any(0).cpu()
    return Manifold(
        precision=float(inside.double().mean()),
        recall=float(recalled.double().mean()),
        density=balls / (density_neighbours * len(made)),
        coverage=float(covered.double().mean()),
    )


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(m, n) squared distances of rows, from one product; those within rounding of 0 are 0, so that copies of an image lie on it."""
    first, second = x.square().sum(1), y.square().sum(1)
    found = torch.addmm(second.expand(len(x), -1), x, y.T, alpha=-2).add_(first[:, None])
    rounding = 16 * torch.finfo(x.dtype).eps
    return found.masked_fill_(found <= rounding * (first[:, None] + second), 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Places:
    """Features as distances want them: around the origin, where products round least."""

    centre: Tensor
    device: torch.device
    dtype: torch.dtype

    def take(self, features: Tensor) -> Tensor:
        return (features.double() - self.centre).to(self.device, self.dtype)

    def ball(self, radii: Tensor) -> Tensor:
        """Squared radii, a rounding wider: a feature on the edge is inside in whatever blocks it is compared."""
        return radii.to(self.device, self.dtype) * (1 + 1024 * torch.finfo(self.dtype).eps)

    def radii(self, features: Tensor, neighbours: Sequence[int]) -> list[Tensor]:
        """For each k, (N,) float64 squared distances to the k-th nearest other feature of the set."""
        most, parts = max(neighbours) + 1, []
        for rows in features.split(ROWS):
            x = self.take(rows)
            best = torch.zeros(len(x), 0, device=self.device, dtype=self.dtype)
            for columns in features.split(COLUMNS):
                distances = squared_distances(x, self.take(columns))
                nearest = distances.topk(min(most, distances.shape[1]), dim=1, largest=False).values
                best = torch.cat([best, nearest], dim=1)
                best = best.topk(min(most, best.shape[1]), dim=1, largest=False).values  # sorted; the first is the feature itself
            parts.append(best[:, list(neighbours)].cpu().double())
        return list(torch.cat(parts).unbind(1))


def _mean(features: Tensor) -> Tensor:
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for part in features.split(COLUMNS):
        total += part.double().sum(0)
    return total / len(features)


def _check(real: Tensor, made: Tensor, *neighbours: int) -> None:
    if min(neighbours) < 1:
        raise ConfigError(f"neighbours must be at least 1, got {min(neighbours)}")
    if real.ndim != 2 or made.ndim != 2 or real.shape[1] != made.shape[1]:
        raise DataError(f"features must be (N, D) and (M, D) of one extractor, got {tuple(real.shape)} and {tuple(made.shape)}")
    if min(len(real), len(made)) <= max(neighbours):
        raise DataError(f"{max(neighbours)} neighbours need more images than that on each side, got {len(real)} and {len(made)}")
