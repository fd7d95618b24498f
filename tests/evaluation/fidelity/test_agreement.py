"""Figures against torch-fidelity on given features, where it is installed."""

from __future__ import annotations

import pytest
import torch
from tests.evaluation.torchvision_shim import library

from rediffuse.evaluation.fidelity.inception import ClassSums
from rediffuse.evaluation.fidelity.kernel import kid
from rediffuse.evaluation.fidelity.manifold import manifold
from rediffuse.evaluation.fidelity.moments import frechet

GENERATOR = torch.Generator().manual_seed(0)
REAL, MADE = torch.randn(300, 12, generator=GENERATOR), torch.randn(300, 12, generator=GENERATOR) * 0.8 + 0.2


def test_frechet_distance_is_that_of_torch_fidelity() -> None:
    theirs = library("torch_fidelity.metric_fid")
    found = theirs.fid_statistics_to_metric(*(theirs.fid_features_to_statistics(own) for own in (REAL, MADE)), False)
    assert frechet(REAL, MADE) == pytest.approx(found["frechet_inception_distance"], rel=1e-6)


def test_kernel_distance_is_that_of_torch_fidelity() -> None:
    theirs = library("torch_fidelity.metric_kid").kid_features_to_metric
    found = theirs(REAL, MADE, kid_subsets=2, kid_subset_size=300, verbose=False)
    assert kid(REAL, MADE).value == pytest.approx(found["kernel_inception_distance_mean"], rel=1e-4)


def test_precision_and_recall_are_those_of_torch_fidelity() -> None:
    theirs = library("torch_fidelity.metric_prc").prc_features_to_metric
    found = theirs(MADE, REAL, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False)
    ours = manifold(REAL, MADE)
    assert (ours.precision, ours.recall) == pytest.approx((found["precision"], found["recall"]))


def test_the_inception_score_is_that_of_torch_fidelity() -> None:
    theirs = library("torch_fidelity.metric_isc").isc_features_to_metric
    logits = 3 * torch.randn(300, 6, generator=GENERATOR)
    found = theirs(logits, splits=1, shuffle=False)
    assert ClassSums.of(logits, splits=1).score()[0] == pytest.approx(found["inception_score_mean"], rel=1e-5)
