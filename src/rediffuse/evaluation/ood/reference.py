"""What scores take from training images: a threshold of ReAct, a bank of neighbours, class means with one covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.ood.scores import REACT_PERCENTILE

NEIGHBOURS = 50
"""k of KNN, as published for a bank of all of CIFAR-10's training images."""
BANK = 50_000
"""Training images that references are made of, at most."""
CHUNK = 8192
"""Rows of the bank that queries are compared with at a time."""
ROWS = 1024
"""Queries at a time: with a chunk, 64 MB of float64 similarities."""


def react_threshold(features: Tensor, percentile: float = REACT_PERCENTILE) -> float:
    """A percentile of all values of the training features (N, D). Reference: Sun, Guo, Li, NeurIPS 2021, arXiv 2111.12797, section 3."""
    return float(np.percentile(features.numpy(), percentile))


def check_neighbours(k: int, images: int) -> None:
    """Raise ConfigError unless so many training images have a k-th nearest."""
    if not 1 <= k <= images:
        raise ConfigError(f"neighbours must be 1 to the {images} training images at hand, got {k}; give more images or fewer neighbours")


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """Unit training features, and how far a query's k-th nearest is.

    Args:
        bank: (N, D) float32 training features of length 1; `of` makes them.
        k: which neighbour, 1 to N.
    Reference: Sun et al., ICML 2022, arXiv 2204.06507, Eq. 3.
    """

    bank: Tensor
    k: int = NEIGHBOURS

    @classmethod
    def of(cls, features: Tensor, k: int = NEIGHBOURS) -> Neighbours:
        """From training features (N, D). Raises ConfigError where there are fewer than k."""
        check_neighbours(k, len(features))
        return cls(bank=F.normalize(features.float(), dim=1), k=k)

    def score(self, features: Tensor) -> Tensor:
        """Minus the distance of unit features to the k-th nearest in the bank, (M,) float64; chunks of the bank change nothing."""
        return torch.cat([self._score(part) for part in features.split(ROWS)]) if len(features) else torch.zeros(0, dtype=torch.float64)

    def _score(self, features: Tensor) -> Tensor:
        unit = F.normalize(features.double(), dim=1)
        best = torch.full((len(unit), 0), 0.0, dtype=torch.float64)
        for part in self.bank.split(CHUNK):
            best = torch.cat([best, unit @ part.double().T], dim=1)
            best = best.topk(min(self.k, best.shape[1]), dim=1).values
        return -(2 - 2 * best[:, -1]).clamp(min=0).sqrt()


@dataclass(frozen=True, kw_only=True, eq=False)
class Mahalanobis:
    """Class means under one covariance of the features around their class means.

    A feature that never moves makes the covariance singular; it is inverted on the space in which features do move.

    Args:
        whiten: (D, R) float64, covariance's pseudo-inverse = whiten whiten^T.
        means: (K, R) float64 class means, whitened.
    Reference: Lee et al., NeurIPS 2018, arXiv 1807.03888, Eq. 1-2, on the last features, without input preprocessing.
    """

    whiten: Tensor
    means: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor) -> Mahalanobis:
        """From training features (N, D) and labels (N,). Raises DataError where no class has two images."""
        width = features.shape[1]
        if len(features) != len(labels):
            raise DataError(f"one label an image: {len(features)} images, {len(labels)} labels")
        present = labels.unique()
        means, scatter = torch.zeros(len(present), width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        for place, label in enumerate(present):
            rows = (labels == label).nonzero()[:, 0]
            means[place] = sum(
                (features[part].double().sum(0) for part in rows.split(ROWS)), torch.zeros(width, dtype=torch.float64)
            ) / len(rows)
            for part in rows.split(ROWS):
                centred = features[part].double() - means[place]
                scatter += centred.T @ centred
        if len(present) == len(features):
            raise DataError("Mahalanobis needs a class with at least two training images; give more images, or leave that score out")
        values, vectors = torch.linalg.eigh(scatter / len(features))
        moving = values > values[-1] * width * torch.finfo(torch.float64).eps
        if not bool(moving.any()):
            raise DataError("training features do not differ within their classes, so Mahalanobis has no covariance; leave that score out")
        whiten = vectors[:, moving] / values[moving].sqrt()
        return cls(whiten=whiten, means=means @ whiten)

    def score(self, features: Tensor) -> Tensor:
        """Minus the squared distance to the nearest class mean, (M,) float64."""
        parts = [
            torch.cdist(part.double() @ self.whiten, self.means, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
            for part in features.split(ROWS)
        ]
        return -torch.cat(parts).square() if parts else torch.zeros(0, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """All that a network's scores take from its training images; what was not asked for is None."""

    threshold: float | None = None
    neighbours: Neighbours | None = field(default=None, repr=False)
    mahalanobis: Mahalanobis | None = field(default=None, repr=False)

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor | None, scores: Sequence[str], k: int = NEIGHBOURS) -> Reference:
        """Of training features (N, D) and labels (N,), which Mahalanobis alone asks for."""
        if "mahalanobis" in scores and labels is None:
            raise DataError("Mahalanobis asks for labels of the training images; give them, or leave that score out")
        return cls(
            threshold=react_threshold(features) if "react" in scores else None,
            neighbours=Neighbours.of(features, k) if "knn" in scores else None,
            mahalanobis=Mahalanobis.of(features, labels) if labels is not None and "mahalanobis" in scores else None,
        )
