"""Scores against published numbers on random weights, closed forms and plain loops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.ood import reference, scores
from rediffuse.evaluation.ood.reference import Mahalanobis, Neighbours, Reference, react_threshold

PUBLISHED = load_file(Path(__file__).parent / "fixtures" / "ood_scores.safetensors")
GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture
def head() -> nn.Linear:
    layer = nn.Linear(64, 10)
    layer.load_state_dict({"weight": PUBLISHED["weight"], "bias": PUBLISHED["bias"]})
    return layer


def same(ours: Tensor, theirs: Tensor) -> None:
    assert torch.allclose(ours, theirs.double(), rtol=1e-5, atol=1e-5)


def test_scores_are_those_of_the_published_programs(head: nn.Linear) -> None:
    features, logits = PUBLISHED["features"], head(PUBLISHED["features"]).detach()
    same(scores.msp(logits), PUBLISHED["msp"])
    same(scores.energy(logits), PUBLISHED["energy"])
    threshold = react_threshold(features)
    assert threshold == pytest.approx(float(PUBLISHED["react_threshold"]), rel=1e-6)
    same(scores.of_altered(scores.react(features, threshold), head), PUBLISHED["react_90"])
    for percentile in (65, 85, 90):
        for name in ("ash_b", "ash_s", "scale"):
            altered = getattr(scores, name)(features, percentile)
            same(scores.of_altered(altered, head), PUBLISHED[f"{name}_{percentile}"])


def test_published_percentiles_are_the_defaults() -> None:
    features = PUBLISHED["features"]
    assert torch.equal(scores.ash_b(features), scores.ash_b(features, 90))
    assert torch.equal(scores.ash_s(features), scores.ash_s(features, 90))
    assert torch.equal(scores.scale(features), scores.scale(features, 85))


def test_closed_forms_of_equal_logits_and_flat_features() -> None:
    logits = torch.full((2, 5), 3.0)
    assert scores.msp(logits).tolist() == pytest.approx([0.2, 0.2])
    assert scores.max_logit(logits).tolist() == [3.0, 3.0]
    assert scores.energy(logits).tolist() == pytest.approx([3 + math.log(5)] * 2)
    flat = torch.full((1, 20), 2.0)
    assert scores.scale(flat, 85).unique().tolist() == pytest.approx([2 * math.exp(20 / 3)], rel=1e-6)
    assert scores.ash_b(flat, 90).sum().item() == pytest.approx(40)
    assert scores.ash_b(flat, 90).count_nonzero().item() == 2
    confident = scores.msp(torch.tensor([[30.0, 0.0], [31.0, 0.0]]))
    assert confident[1] > confident[0]


def test_an_image_whose_features_are_all_zero_has_finite_scores() -> None:
    for alter in (scores.ash_b, scores.ash_s, scores.scale):
        assert alter(torch.zeros(2, 20)).abs().sum() == 0


def test_what_cannot_be_altered_is_refused() -> None:
    with pytest.raises(ModelError, match=r"net has features below 0 \(down to -0.5\).*leave out the scores react, ash_b, ash_s, scale"):
        scores.check_rectified(torch.tensor([[1.0, -0.5]]), "net")
    with pytest.raises(ConfigError, match="keeps none of 4 features"):
        scores.ash_b(torch.rand(2, 4), 90)
    with pytest.raises(ModelError, match="head of net is a ReLU"):
        scores.linear(nn.ReLU(), "net")
    for asked in ((), ("msp", "msp"), ("odin",)):
        with pytest.raises(ConfigError, match="scores are some of"):
            scores.check_names(asked)


def test_the_kth_neighbour_is_that_of_a_plain_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = torch.randn(300, 7, generator=GENERATOR), torch.randn(40, 7, generator=GENERATOR)
    unit = [row.double() / row.double().norm() for row in bank]
    wanted = [-sorted(float((row.double() / row.double().norm() - other).norm()) for other in unit)[4] for row in queries]
    whole = Neighbours.of(bank, 5).score(queries)
    assert whole.tolist() == pytest.approx(wanted, abs=1e-6)  # the bank is kept in float32
    monkeypatch.setattr(reference, "CHUNK", 3)
    monkeypatch.setattr(reference, "ROWS", 7)
    assert torch.allclose(Neighbours.of(bank, 5).score(queries), whole, atol=1e-12)
    shuffled = Neighbours.of(bank[torch.randperm(300, generator=GENERATOR)], 5)
    assert torch.allclose(shuffled.score(queries), whole, atol=1e-12)
    assert Neighbours.of(bank, 1).score(3 * bank[:5]).abs().max() < 1e-3
    with pytest.raises(ConfigError, match="300 training images at hand, got 301"):
        Neighbours.of(bank, 301)


def test_mahalanobis_is_that_of_an_explicit_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = torch.randn(200, 6, generator=GENERATOR), torch.randint(3, (200,), generator=GENERATOR)
    features = features @ torch.randn(6, 6, generator=GENERATOR) + labels[:, None]
    queries = torch.randn(30, 6, generator=GENERATOR)
    exact = features.double()
    means = torch.stack([exact[labels == label].mean(0) for label in range(3)])
    centred = exact - means[labels]
    inverse = torch.linalg.inv(centred.T @ centred / len(exact))
    wanted = [-min(float((row - mean) @ inverse @ (row - mean)) for mean in means) for row in queries.double()]
    monkeypatch.setattr(reference, "ROWS", 11)
    assert Mahalanobis.of(features, labels).score(queries).tolist() == pytest.approx(wanted, rel=1e-8)


def test_a_dead_feature_changes_no_mahalanobis_distance() -> None:
    features, labels = torch.randn(50, 4, generator=GENERATOR), torch.arange(50) % 2
    queries = torch.randn(9, 4, generator=GENERATOR)
    wider = torch.cat([features, torch.zeros(50, 3)], dim=1)
    further = torch.cat([queries, torch.ones(9, 3)], dim=1)
    assert torch.allclose(Mahalanobis.of(wider, labels).score(further), Mahalanobis.of(features, labels).score(queries), rtol=1e-9)
    with pytest.raises(DataError, match="two training images"):
        Mahalanobis.of(features[:3], torch.arange(3))
    with pytest.raises(DataError, match="do not differ"):
        Mahalanobis.of(torch.ones(6, 3), torch.arange(6) % 2)


def test_only_what_is_asked_for_is_fitted() -> None:
    features = torch.rand(60, 5, generator=GENERATOR)
    found = Reference.fit(features, None, ("msp", "knn"), 3)
    assert found.threshold is None
    assert found.mahalanobis is None
    assert found.neighbours is not None
    with pytest.raises(DataError, match="labels of the training images"):
        Reference.fit(features, None, ("mahalanobis",))
