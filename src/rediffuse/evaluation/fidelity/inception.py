"""Sums of class probabilities, a part at a time, and the Inception Score that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.errors import ConfigError, DataError

SPLITS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassSums:
    """What the score needs of a classifier's probabilities, by split; parts of a set are merged in any order.

    Attributes:
        count: (S,) images.
        probability: (S, K) sum of p.
        negentropy: (S,) sum of sum_k p log p.
    """

    count: Tensor
    probability: Tensor
    negentropy: Tensor

    @classmethod
    def of(cls, logits: Tensor, start: int = 0, splits: int = SPLITS) -> ClassSums:
        """Of logits (B, K) of the images start, start + 1, ...; image i goes to split i modulo S, so sorted classes spread over all."""
        if splits < 1:
            raise ConfigError(f"splits must be at least 1, got {splits}")
        log = logits.double().log_softmax(1)
        probability = log.exp()
        place = torch.arange(start, start + len(logits)) % splits
        empty = torch.zeros(splits, dtype=torch.float64)
        return cls(
            count=empty.index_add(0, place, torch.ones(len(logits), dtype=torch.float64)),
            probability=torch.zeros(splits, logits.shape[1], dtype=torch.float64).index_add(0, place, probability),
            negentropy=empty.index_add(0, place, (probability * log).nan_to_num(0.0).sum(1)),
        )

    def merge(self, other: ClassSums) -> ClassSums:
        return ClassSums(
            count=self.count + other.count,
            probability=self.probability + other.probability,
            negentropy=self.negentropy + other.negentropy,
        )

    def score(self) -> tuple[float, float]:
        """(mean, standard deviation) over splits of exp(mean KL(p(y|x) || p(y))), 1 to K.

        It is the Inception Score where the probabilities are those of the published Inception network; it sees only whether single
        pictures are decided and classes are even, never real pictures.

        Reference: Salimans et al., NeurIPS 2016, arXiv 1606.03498, section 4.
        """
        filled = self.count > 0
        if not bool(filled.any()):
            raise DataError("an Inception Score needs images, got none")
        count, mean = self.count[filled], self.probability[filled] / self.count[filled][:, None]
        entropy = -torch.where(mean > 0, mean * mean.clamp(min=1e-300).log(), 0.0).sum(1)
        found = (self.negentropy[filled] / count + entropy).exp()
        return float(found.mean()), float(found.std(correction=0))
