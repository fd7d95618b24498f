"""Attacks against the optimum where it has a closed form, and the honesty of what they report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluation.certify.toys import CLASSES, HalfSpace, half_space, noise_pictures
from tests.evaluation.test_time.views import Bayes, Projection, gaussians, mixture, pictures
from torch import Tensor, nn

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation import adversarial, attacking
from rediffuse.evaluation.adversarial import Attack, Victim, classifier, distance, ensemble, gradient, losses, perturb, pipeline
from rediffuse.evaluation.attacking import attack_images
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble, DiffAugSettings
from rediffuse.evaluation.test_time.ensembles import image_seeds

SIZE = 8
MIXTURE = mixture(classes=2, spread=0.15)


def seeds(count: int) -> Tensor:
    return image_seeds(0, range(count))


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_plane_is_attacked_at_its_optimum(norm: str, loss: str) -> None:
    judged = half_space(SIZE)
    plane: HalfSpace = judged.network  # type: ignore[assignment]
    images = 0.4 + 0.2 * pictures(6)  # no image's ball leaves [0, 1]
    labels = torch.tensor([0, 1] * 3)
    attack = Attack(norm=norm, epsilon=0.3, steps=10, draws=1, loss=loss)  # type: ignore[arg-type]
    found = perturb(classifier(judged), images, labels, attack, seeds(6))
    away = torch.where(labels == 0, -1.0, 1.0).view(-1, 1, 1, 1)
    steepest = plane.normal.sign() if norm == "linf" else plane.normal
    assert torch.allclose(found.images, images + 0.3 * away * steepest, atol=1e-5)
    moved = plane.distance(found.images) - plane.distance(images)
    reach = 0.3 * (float(plane.normal.abs().sum()) if norm == "linf" else 1)  # the dual norm of the plane's normal
    assert moved.tolist() == pytest.approx((reach * away.flatten()).tolist(), rel=1e-4)
    assert not found.flat.any()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nothing_leaves_the_ball_or_the_range(norm: str) -> None:
    images = pictures(5)
    images[0], images[1] = 0, 1
    judged = Judged(Projection(), list("abcd"))
    attack = Attack(norm=norm, epsilon=0.5, steps=7, step_size=0.4, restarts=3, draws=1)  # type: ignore[arg-type]
    labels = judged.logits(images).argmax(1)
    found = perturb(classifier(judged), images, labels, attack, seeds(5))
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    assert float(distance(found.images, images, attack.norm).max()) <= 0.5 + 1e-5
    before = losses(judged(images), labels, attack.loss)
    assert bool((found.loss > before).all())
    first = perturb(classifier(judged), images, labels, Attack(**{**attack.__dict__, "restarts": 1}), seeds(5))
    assert bool((found.loss >= first.loss).all())
    alone = perturb(classifier(judged), images[2:3], labels[2:3], attack, seeds(5)[2:3])
    assert torch.allclose(alone.images, found.images[2:3], atol=1e-5)  # company changes nothing


def test_the_gradient_is_the_mean_over_draws_and_exact_through_the_denoiser() -> None:
    judged, labels = Judged(Bayes(MIXTURE), ["a", "b"]), torch.tensor([0, 1, 0])
    victim = pipeline(judged, MIXTURE, 300, reference_size=None)
    images = 0.3 + 0.4 * pictures(3)
    rows = torch.stack([seeds(9)[k : k + 3] for k in (0, 3, 6)])
    mean = gradient(victim, images, labels, rows, "margin")
    each = []
    for row in rows:
        asked = images.clone().requires_grad_()
        losses(victim.ask(asked, row), labels, "margin").sum().backward()
        each.append(asked.grad)
    assert torch.allclose(mean, torch.stack(each).mean(0), rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
    assert not torch.allclose(each[0], each[1], rtol=0.01)  # type: ignore[arg-type]

    def value(at: Tensor) -> Tensor:
        return torch.stack([losses(victim.ask(at, row), labels, "margin") for row in rows]).mean(0)

    direction = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) / 14
    numeric = (value(images + 0.02 * direction) - value(images - 0.02 * direction)) / 0.04
    exact = (mean * direction).flatten(1).sum(1)
    assert exact.tolist() == pytest.approx(numeric.tolist(), rel=0.02, abs=0.02 * float(numeric.abs().max()))


def drawn(count: int = 12) -> tuple[Judged, ImageSet]:
    """Draws of a mixture, and its best classifier."""
    return gaussians(count)[:2]


def victims(judged: Judged) -> list[Victim]:
    settings = DiffAugSettings(step=150, t_max=300, reference_size=None)
    return [
        classifier(judged),
        pipeline(judged, MIXTURE, 300, reference_size=None),
        ensemble(judged, DiffAugEnsemble(judged.as_module(), MIXTURE, settings)),
    ]


def test_an_ensemble_of_views_is_no_defence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, images = drawn()
    attack = Attack(norm="l2", epsilon=1.5, steps=5, draws=2)
    done: list[tuple[int, int]] = []
    found = attack_images(victims(judged), images, attack, size=SIZE, progress=lambda *counts: done.append(counts))
    assert done == [(12, 36), (24, 36), (36, 36)]
    for each in found.victims:
        assert each.clean.mean() > 0.9
        assert each.attacked.mean() < 0.2
        assert not each.flat.any()
        assert each.moved.max() <= 1.5 + 1e-5
        assert not (each.attacked & ~each.clean).any()
    monkeypatch.setattr(attacking, "BLOCK", 5)

    def stop(count: int, total: int) -> None:
        if count == 22:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack_images(victims(judged), images, attack, size=SIZE, keep=tmp_path / "kept", progress=stop)
    kept = attack_images(victims(judged), images, attack, size=SIZE, keep=tmp_path / "kept")
    assert kept.table() == attack_images(victims(judged), images, attack, size=SIZE).table()
    turned = attack_images(victims(judged)[::-1], images, attack, size=SIZE, keep=tmp_path / "kept")
    assert turned.table() == kept.table()[::-1]  # kept by name, not by place
    other = Attack(norm="l2", epsilon=1.0, steps=5, draws=2)
    with pytest.raises(ConfigError, match=r"epsilon 1\.5 there, 1\.0 here"):
        attack_images(victims(judged), images, other, size=SIZE, keep=tmp_path / "kept")
    saved = json.loads(found.save("attacked_toy", tmp_path, command="made up").read_text())
    assert saved["headline"]["bayes_attacked_accuracy"]["value"] == found.find("bayes").attacked.mean()
    assert "shows weakness only" in " ".join(saved["notes"])
    assert found.difference("bayes ensemble", "bayes").value == pytest.approx(
        found.find("bayes ensemble").attacked.mean() - found.find("bayes").attacked.mean()
    )
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))["differences"]
    assert len(told) == 3
    assert {"victim": "bayes", "over": "bayes ensemble", **found.difference("bayes", "bayes ensemble").to_json()} in told


def test_what_is_kept_tells_the_numbers_of_a_denoiser_apart() -> None:
    judged, found = Judged(Bayes(MIXTURE), ["a", "b"]), []
    for dtype in (torch.float32, torch.bfloat16):
        denoiser = mixture(classes=2, spread=0.15)
        denoiser.dtype = dtype
        found.append(ensemble(judged, DiffAugEnsemble(nn.Identity(), denoiser)).identity["denoiser_numbers"])
    assert found == [["float32"], ["bfloat16"]]


def test_confidence_flattens_the_cross_entropy_and_the_report_shows_it() -> None:
    judged, images = drawn(4)
    found = attack_images(classifier(judged), images, Attack(norm="l2", epsilon=1.5, draws=1, loss="cross_entropy"), size=SIZE)
    assert found.table()[0]["attacked_accuracy"] == 1
    assert found.table()[0]["without_gradient"] == 1  # it is the attack that failed
    assert (
        attack_images(classifier(judged), images, Attack(norm="l2", epsilon=1.5, draws=1), size=SIZE).table()[0]["attacked_accuracy"] == 0
    )


def test_no_attack_is_found_within_the_distance_of_a_plane() -> None:
    images = noise_pictures(20, 4)
    pixels, plane = torch.stack(list(images.fitted(4))), HalfSpace(4)
    found = attack_images(classifier(half_space(4)), images, Attack(norm="l2", epsilon=0.25, steps=10, draws=1), size=4)
    safe = (plane.distance(pixels).abs() > 0.25).numpy()
    assert safe.any()
    assert not safe.all()
    assert found.victims[0].attacked[safe].all()
    inside = ((pixels > 0.25) & (pixels < 0.75)).all(dim=3).all(dim=2).all(dim=1).numpy()  # those that [0, 1] does not protect
    assert not found.victims[0].attacked[~safe & inside].any()


def test_an_attack_that_cannot_work_says_so() -> None:
    class Stairs(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images.round().sum((1, 2, 3)), 40 + 0 * images.sum((1, 2, 3))], 1)

    judged, images = Judged(Stairs(), CLASSES, name="stairs"), noise_pictures(4, 4)
    found = attack_images(classifier(judged), images, Attack(steps=2, draws=1), size=4)
    assert found.victims[0].row()["without_gradient"] == 1
    closed = Victim(name="closed", judged=judged, ask=lambda given, _: judged.logits(given))
    with pytest.raises(ModelError, match="closed lets no gradient through"):
        attack_images(closed, images, Attack(steps=2, draws=1), size=4)
    wrong = Judged(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), CLASSES, name="wrong")
    with torch.no_grad():
        wrong.network[1].bias[0] = torch.nan  # type: ignore[index, union-attr]
    with pytest.raises(ModelError, match="wrong gives logits that are NaN"):
        attack_images(classifier(wrong), images, size=4)


def test_restarts_begin_at_other_places() -> None:
    images = torch.full((2, 3, 4, 4), 0.5)
    first, second = (adversarial._start(images, seeds(2), restart, Attack()) for restart in (1, 2))
    assert not torch.isclose(first, second).any()


def test_what_is_wrong_is_said() -> None:
    judged, images = half_space(4), noise_pictures(2, 4)
    for settings in ({"epsilon": 0}, {"epsilon": float("nan")}, {"step_size": -1}, {"steps": 0}, {"restarts": 0}, {"draws": 0}):
        with pytest.raises(ConfigError, match="must be"):
            Attack(**settings)  # type: ignore[arg-type]
    for settings in ({"norm": "l1"}, {"loss": "hinge"}):
        with pytest.raises(ConfigError, match="must be one of"):
            Attack(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="different names"):
        attack_images([classifier(judged), classifier(judged)], images, size=4)
    with pytest.raises(DataError, match="no images"):
        attack_images(classifier(judged), images.subset([]), size=4)
    assert np.isclose(Attack(epsilon=0.1, steps=5).step, 0.05)
