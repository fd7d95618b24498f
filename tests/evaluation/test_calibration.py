"""Calibration against closed forms, a second implementation, and predictions that are calibrated by construction."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from tests.training.toys import striped
from torch import Tensor, nn

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation import calibrating
from rediffuse.evaluation.calibrating import calibrate
from rediffuse.evaluation.calibration import HOTTEST, calibration_error, chance_error, fit_temperature, judge, reliability
from rediffuse.evaluation.calibration_gain import METRICS
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.suite.columns import Columns

SIZE = 8


def answers(count: int, classes: int = 5, seed: int = 0, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from their own softmax: calibrated exactly."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(count, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_a_diagram_counted_by_hand() -> None:
    confidence = np.array([0.05, 0.55, 0.6, 0.95, 1.0, 0.2])
    right = np.array([False, True, False, True, True, False])
    found = reliability(confidence, right, bins=5)
    assert found.edges == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert found.counts == (2, 0, 2, 0, 2)  # an edge belongs to the bin below it
    assert found.confidence == (0.125, None, 0.575, None, 0.975)
    assert found.accuracy == (0, None, 0.5, None, 1)
    assert found.error == pytest.approx((2 * 0.125 + 2 * 0.075 + 2 * 0.025) / 6)
    mass = reliability(confidence, right, bins=3, equal_mass=True)
    assert mass.counts == (2, 2, 2)
    assert mass.edges == (0, 0.55, 0.95, 1)
    assert mass.error == pytest.approx((2 * 0.125 + 2 * 0.075 + 2 * 0.025) / 6)
    assert sum(reliability(np.linspace(0.1, 1, 100), np.ones(100, bool), bins=15, equal_mass=True).counts) == 100


@pytest.mark.parametrize("equal_mass", [False, True])
def test_calibrated_answers_have_no_error_and_sure_ones_have_theirs(equal_mass: bool) -> None:
    logits, labels = answers(100_000)
    calm = judge(logits, labels)
    assert calibration_error(calm.confidence, calm.right, equal_mass=equal_mass) < 0.01
    sure = judge(logits, labels, temperature=0.25)
    gap = float(sure.confidence.mean() - sure.right.mean())  # too sure in every bin, so the bins add up to the whole gap
    assert calibration_error(sure.confidence, sure.right, equal_mass=equal_mass) == pytest.approx(gap, abs=0.01)
    assert gap > 0.1


@pytest.mark.parametrize("equal_mass", [False, True])
@pytest.mark.parametrize(("count", "confidence"), [(60, 0.9), (300, 0.7)])
def test_what_chance_makes_of_true_confidences(equal_mass: bool, count: int, confidence: float) -> None:
    """In one bin, of one confidence p, the error of calibrated answers is |Binomial(n, p) / n - p|."""
    errors = np.abs(np.arange(count + 1) / count - confidence)
    chances = stats.binom.pmf(np.arange(count + 1), count, confidence)
    own = np.full(count, confidence)
    found = np.array([chance_error(own, bins=1, equal_mass=equal_mass, draws=400, seed=seed) for seed in range(25)])
    spread = math.sqrt((chances @ errors**2 - (chances @ errors) ** 2) / (25 * 400))
    assert found[:, 0].mean() == pytest.approx(chances @ errors, abs=4 * spread)
    near = float(found[:, 1].mean())  # percentiles of whole answers are steps of 1 / n
    below, above = (float(chances[errors <= near + step / count].sum()) for step in (-1, 1))
    assert below < 0.95 < above


@pytest.mark.parametrize("equal_mass", [False, True])
def test_overconfident_answers_lie_above_what_chance_makes(equal_mass: bool) -> None:
    sharp = 0
    for seed in range(25):
        found = judge(*answers(300, seed=seed), temperature=0.5)
        _, most = chance_error(found.confidence, equal_mass=equal_mass, draws=100, seed=seed)
        sharp += calibration_error(found.confidence, found.right, equal_mass=equal_mass) <= most
    assert sharp < 10
    few, many = (chance_error(judge(*answers(count)).confidence, equal_mass=equal_mass)[0] for count in (200, 20_000))
    assert few / many == pytest.approx(10, rel=0.15)  # as one over the root of the number of images
    assert chance_error(np.ones(50), equal_mass=equal_mass) == (0, 0)


def test_proper_scores_are_what_they_say() -> None:
    logits, labels = answers(50, classes=3)
    found = judge(logits, labels)
    probabilities, truth = logits.double().softmax(1), nn.functional.one_hot(labels, 3)
    assert torch.allclose(torch.from_numpy(found.brier), (probabilities - truth).square().sum(1))
    assert found.surprise.mean() == pytest.approx(float(nn.functional.cross_entropy(logits.double(), labels)))
    assert np.array_equal(found.right, (logits.argmax(1) == labels).numpy())
    even = judge(torch.zeros(4, 10), torch.arange(4))
    assert even.brier == pytest.approx([0.9] * 4)
    assert even.surprise == pytest.approx([math.log(10)] * 4)


def test_ece_is_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    for seed in range(3):
        logits, labels = answers(2000, classes=7, seed=seed, spread=3)
        found = judge(logits, labels)
        theirs = functional.multiclass_calibration_error(logits.double().softmax(1), labels, num_classes=7, n_bins=15, norm="l1")
        assert calibration_error(found.confidence, found.right) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_a_temperature_is_found_again(true: float) -> None:
    logits, labels = answers(20_000)
    found = fit_temperature(logits * true, labels)
    assert found == pytest.approx(true, rel=0.03)
    scores = (logits * true / found).double().requires_grad_(False)
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    nn.functional.cross_entropy(scores * inverse, labels).backward()
    assert abs(float(inverse.grad or 0)) < 1e-4  # a minimum: the slope in 1 / T is 0


class Line(nn.Module):
    """Linear logits of the pixels, at a temperature; NaN from the call of that number on."""

    def __init__(self, sharpness: float, breaks: int = 10**9) -> None:
        super().__init__()
        weight = torch.randn(3 * SIZE * SIZE, 4, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(sharpness * weight)
        self.breaks, self.calls = breaks, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return (images - 0.5).flatten(1) @ self.weight * (torch.nan if self.calls > self.breaks else 1)


def answered(images: ImageSet) -> ImageSet:
    """The same pictures with labels drawn from what `Line(0.1)` says of them: it is calibrated exactly, at any size of set."""
    probabilities = Line(0.1)(torch.stack(list(images.fitted(SIZE)))).softmax(1)
    labels = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(0))[:, 0].tolist()
    return ImageSet.of([replace(example, label=label) for example, label in zip(images, labels, strict=True)], classes=images.classes)


IMAGES, OTHERS = answered(striped(6, size=SIZE)), answered(striped(5, size=SIZE, seed=9))


def models(breaks: int = 10**9) -> list[Judged]:
    return [Judged(Line(0.1), IMAGES.classes, name="calm"), Judged(Line(1.0, breaks), IMAGES.classes, name="sure")]


def test_models_on_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "BLOCK", 7)
    done: list[tuple[int, int]] = []
    found = calibrate(models(), IMAGES, size=SIZE, temperature_images=OTHERS, progress=lambda *counts: done.append(counts))
    assert done[-1] == (44, 44)
    assert done == sorted(done)
    calm, sure = found.models
    pictures, labels = torch.stack(list(IMAGES.fitted(SIZE))), torch.tensor([label for label in IMAGES.labels if label is not None])
    logits = models()[0].logits(pictures)
    assert calm.as_is.surprise.mean() == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert sure.temperature == pytest.approx(10 * (calm.temperature or 0), rel=1e-3)  # the same logits, ten times as large
    assert sure.row()["nll_scaled"] == pytest.approx(calm.row()["nll_scaled"], rel=1e-3)
    assert sure.row()["accuracy"] == calm.row()["accuracy"]
    gap = found.difference("sure", "calm", "nll")
    assert gap.value == pytest.approx(sure.row()["nll"] - calm.row()["nll"])
    assert gap.low is not None
    assert gap.high is not None
    assert 0 < gap.low < gap.value < gap.high
    assert found.difference("sure", "calm", "ece", scaled=True).value == pytest.approx(0, abs=1e-3)
    saved = json.loads(found.save("calibration_toy", tmp_path, command="made up").read_text())
    assert saved["headline"]["nll_minus_sure"]["value"] == pytest.approx(-gap.value)
    assert [row["model"] for row in saved["rows"]] == ["calm", "sure"]
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert len(told["diagrams"]) == 4
    assert [row["metric"] for row in told["differences"]] == list(METRICS)
    paired = found.difference("calm", "sure", "nll").to_json()
    assert told["differences"][-1] == {"model": "calm", "over": "sure", "metric": "nll", **paired}


def test_kill_and_resume_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "BLOCK", 7)
    whole = calibrate(models(), IMAGES, size=SIZE, temperature_images=OTHERS).table()
    with pytest.raises(ModelError, match="sure gives logits that are NaN"):
        calibrate(models(breaks=5), IMAGES, size=SIZE, temperature_images=OTHERS, keep=tmp_path)
    again = models()
    assert calibrate(again, IMAGES, size=SIZE, temperature_images=OTHERS, keep=tmp_path).table() == whole
    assert again[1].network.calls == 7 - 5
    turned = calibrate(models()[::-1], IMAGES, size=SIZE, temperature_images=OTHERS, keep=tmp_path)
    assert turned.table() == whole[::-1]  # kept by name, not by place
    with pytest.raises(ConfigError, match="belongs to another call"):
        calibrate(models()[:1], IMAGES, size=SIZE, keep=tmp_path)


def test_what_is_wrong_is_said() -> None:
    one = models()[0]
    with pytest.raises(DataError, match=r"24 images are both judged and fitted on, such as 0/000\.png"):
        calibrate(one, IMAGES, size=SIZE, temperature_images=IMAGES)
    with pytest.raises(DataError, match="holds no images"):
        calibrate(one, IMAGES.subset([]), size=SIZE)
    with pytest.raises(ConfigError, match="different names"):
        calibrate([one, one], IMAGES, size=SIZE)
    with pytest.raises(ConfigError, match="bins must be at least 1"):
        calibrate(one, IMAGES, size=SIZE, bins=0)
    found = calibrate(one, IMAGES, size=SIZE)
    with pytest.raises(ConfigError, match="no temperature was fitted for calm"):
        found.models[0].diagram(scaled=True)
    with pytest.raises(ConfigError, match="metric must be one of"):
        found.difference("calm", "calm", "fid")
    with pytest.raises(ConfigError, match="no calibration of 'x'; there are calm"):
        found.find("x")
    with pytest.raises(DataError, match="NaN"):
        judge(torch.full((1, 2), torch.nan), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match="labels must lie in 0 to 1"):
        judge(torch.zeros(1, 2), torch.tensor([2]))
    with pytest.raises(DataError, match="give probabilities"):
        calibration_error(np.array([3.0]), np.array([True]))


def test_a_difference_in_accuracy_has_one_interval() -> None:
    """On the card of an evaluation and in the table of an ensemble that sees the same images, in whatever order."""
    other = Line(0.1)
    other.weight.data = other.weight.data.roll(1, 1)
    judged = [models()[0], Judged(other, IMAGES.classes, name="other")]
    card, turned = (calibrate(judged, given, size=SIZE) for given in (IMAGES, IMAGES.subset(range(len(IMAGES))[::-1])))
    table = Columns(kind="ensemble", pairs=(("calm", "other"),), images=len(IMAGES), clean=turned)
    one = card.difference("calm", "other", "accuracy")
    assert one.low is not None
    assert one.low < one.value
    assert one == table.clean_gain("calm", "other")


def test_few_images_have_no_interval() -> None:
    found = calibrate(models(), IMAGES.subset(range(9)), size=SIZE).difference("calm", "sure", "accuracy")
    assert (found.low, found.high, found.basis) == (None, None, "too few test images")
    assert calibrate(models(), IMAGES.subset(range(10)), size=SIZE).difference("calm", "sure", "nll").low is not None


@pytest.mark.parametrize("margin", [0.5, 2.0, 10.0, 40.0, 300.0])
def test_images_that_are_all_right_have_the_coldest_temperature(margin: float) -> None:
    labels = torch.arange(30) % 3
    assert fit_temperature(margin * nn.functional.one_hot(labels, 3), labels) == 1 / HOTTEST
    ties = torch.zeros(30, 3)
    assert fit_temperature(ties, labels) > 1 / HOTTEST
