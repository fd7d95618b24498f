"""Scores and figures against pytorch-ood, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.evaluation.torchvision_shim import library
from torch import Tensor, nn

from rediffuse.evaluation.ood import metrics, scores
from rediffuse.evaluation.ood.reference import Mahalanobis, Neighbours, react_threshold

GENERATOR = torch.Generator().manual_seed(0)
FEATURES, BANK = torch.randn(50, 40, generator=GENERATOR).relu(), torch.randn(300, 40, generator=GENERATOR).relu()
LABELS = torch.arange(300) % 5


@pytest.fixture
def head() -> nn.Linear:
    layer = nn.Linear(40, 5)
    layer.load_state_dict({"weight": torch.randn(5, 40, generator=GENERATOR), "bias": torch.randn(5, generator=GENERATOR)})
    return layer.requires_grad_(False)


def same(ours: Tensor, theirs: Tensor) -> None:
    """Theirs is high for unknown images."""
    assert torch.allclose(ours, -theirs.double(), rtol=1e-4, atol=1e-5)


def test_scores_are_those_of_pytorch_ood(head: nn.Linear) -> None:
    detectors = library("pytorch_ood.detector")
    logits = head(FEATURES)
    same(scores.msp(logits), detectors.MaxSoftmax.score(logits))
    same(scores.max_logit(logits), detectors.MaxLogit.score(logits))
    same(scores.energy(logits), detectors.EnergyBased.score(logits))
    maps = FEATURES[:, :, None, None]

    def of_maps(found: Tensor) -> Tensor:
        return head(found.flatten(1))

    for variant, altered in (("ash-b", scores.ash_b), ("ash-s", scores.ash_s)):
        theirs = detectors.ASH(backbone=None, head=of_maps, variant=variant, percentile=0.9).predict_feature_maps(maps)
        same(scores.of_altered(altered(FEATURES), head), theirs)
    theirs = detectors.SCALE(backbone=None, head=of_maps, percentile=0.85).predict_feature_maps(maps)
    same(scores.of_altered(scores.scale(FEATURES), head), theirs)
    threshold = react_threshold(BANK)
    theirs = detectors.ReAct(backbone=None, head=of_maps, threshold=threshold).predict_feature_maps(maps)
    same(scores.of_altered(scores.react(FEATURES, threshold), head), theirs)


def test_distances_are_those_of_pytorch_ood() -> None:
    detectors = library("pytorch_ood.detector")
    nearest = detectors.KNN(None, k=7)
    nearest.fit_features(BANK, LABELS)
    same(Neighbours.of(BANK, 7).score(FEATURES), torch.as_tensor(nearest.predict_features(FEATURES)))
    gaussian = detectors.Mahalanobis(None)
    gaussian.fit_features(BANK, LABELS)
    theirs = gaussian.predict_features(FEATURES)
    ours = Mahalanobis.of(BANK, LABELS).score(FEATURES)
    # Theirs leaves out the division by the number of images, and adds a ridge.
    assert np.corrcoef(ours.numpy(), -theirs.numpy())[0, 1] > 1 - 1e-5


def test_figures_are_those_of_pytorch_ood() -> None:
    ours, generator = library("pytorch_ood.metrics").OODMetrics(), np.random.default_rng(0)
    known, unknown = generator.normal(1, 1, 400), generator.normal(0, 1, 300)
    ours.update(-torch.from_numpy(np.concatenate([known, unknown])), torch.cat([torch.zeros(400), -torch.ones(300)]).long())
    found = ours.compute()
    assert found["AUROC"] == pytest.approx(metrics.auroc(known, unknown), abs=1e-9)
    assert found["FPR95TPR"] == pytest.approx(metrics.fpr95(known, unknown), abs=1e-9)
    assert found["AUPR-IN"] == pytest.approx(metrics.aupr_known(known, unknown), abs=5e-3)  # they join points by lines
    assert found["AUPR-OUT"] == pytest.approx(metrics.aupr_unknown(known, unknown), abs=5e-3)
