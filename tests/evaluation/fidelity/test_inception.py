"""The Inception-Score-like figure: its ends, scipy's divergence, and merging."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from rediffuse.errors import DataError
from rediffuse.evaluation.fidelity.inception import ClassSums

GENERATOR = torch.Generator().manual_seed(0)


def test_ends_of_the_scale() -> None:
    decided = 1e4 * torch.eye(5).repeat(20, 1)
    assert ClassSums.of(decided, splits=2).score() == pytest.approx((5, 0))
    assert ClassSums.of(torch.zeros(40, 5), splits=3).score() == pytest.approx((1, 0))
    assert ClassSums.of(decided[:1].repeat(9, 1)).score() == pytest.approx((1, 0))  # decided, but of one class


def test_the_score_is_that_of_scipys_divergence_and_of_merged_parts() -> None:
    logits = 3 * torch.randn(50, 4, generator=GENERATOR)
    probability = logits.double().softmax(1).numpy()
    wanted = []
    for split in range(3):
        own = probability[split::3]
        wanted.append(np.exp(np.mean([entropy(row, own.mean(0)) for row in own])))
    assert ClassSums.of(logits, splits=3).score() == pytest.approx((np.mean(wanted), np.std(wanted)))
    parts = [ClassSums.of(logits[a:b], a, 3) for a, b in ((20, 50), (0, 7), (7, 20))]
    assert parts[0].merge(parts[1]).merge(parts[2]).score() == pytest.approx((np.mean(wanted), np.std(wanted)))
    with pytest.raises(DataError, match="got none"):
        ClassSums.of(logits[:0]).score()
