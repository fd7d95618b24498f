"""Unknown inputs in a suite: what cannot be had is named, and loses nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.ood.toys import CLASSES, TwoHeads, judged, noise
from tests.training.toys import striped
from torch import Tensor, nn

from rediffuse.data.types import ImageSet
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.ood import scoring
from rediffuse.evaluation.ood.result import OodResult
from rediffuse.evaluation.ood.scores import DISTANCE_SCORES, FITTED_SCORES, HEADLINE, RECTIFIED_SCORES, SCORES
from rediffuse.evaluation.suite.asking import Asking
from rediffuse.evaluation.suite.settings import SuiteSettings
from rediffuse.evaluation.suite.unknown import unknown

KNOWN, TRAIN = striped(5, size=8, seed=1), striped(15, size=8, seed=2)
NEAR = noise(12, seed=3, low=60, high=200, name="near")


def asking(*models: Judged, train: ImageSet | None = TRAIN) -> Asking:
    return Asking(models=models, data=KNOWN, settings=SuiteSettings(size=8), near={"near": NEAR}, train=train)


def found(given: Asking, keep: Path | None = None) -> OodResult:
    part = unknown(given)
    result: Any = part.join([part.run(keep, None)])
    assert result.scores
    assert {row.score for row in result.rows} == set(result.scores)
    return result  # type: ignore[no-any-return]


class Headless(nn.Module):
    """Logits with no linear layer behind them."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean((2, 3)), images.amax((1, 2, 3))[:, None]], 1)


class Flat(nn.Module):
    """One feature vector for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.head(torch.ones(len(images), 24))
        return features


def test_every_score_is_there_where_it_can_be_had() -> None:
    result = found(asking(judged(0), judged(1)))
    assert result.scores == SCORES
    assert result.notes == ()


@pytest.mark.parametrize(
    ("model", "lost", "reason"),
    [
        (
            Judged(Headless(), CLASSES, name="headless"),
            (*RECTIFIED_SCORES, *DISTANCE_SCORES),
            "headless has no linear layer with 4 outputs",
        ),
        (Judged(TwoHeads(), CLASSES, name="two"), (*RECTIFIED_SCORES, *DISTANCE_SCORES), "the head of two, its last linear layer"),
        (judged(relu=False, name="signed"), RECTIFIED_SCORES, "signed has features below 0"),
        (Judged(Flat(), CLASSES, name="flat"), ("mahalanobis",), "training features do not differ within their classes"),
    ],
)
def test_what_one_model_cannot_be_asked_is_left_out_and_named(model: Judged, lost: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    result = found(asking(judged(1), model), tmp_path / "kept")
    assert result.scores == tuple(score for score in SCORES if score not in lost)
    (note,) = result.notes
    assert note.startswith(f"left out: {', '.join(score for score in SCORES if score in lost)}, because ")
    assert reason in note
    assert note in result.content().notes
    assert found(asking(judged(1), model), tmp_path / "kept").rows == result.rows


def test_without_training_images_the_scores_that_want_some_are_named() -> None:
    result = found(asking(judged(), train=None))
    assert not set(FITTED_SCORES) & set(result.scores)
    assert result.notes == ("left out: react, knn, mahalanobis, because no training images were given (--train)",)


def test_training_images_without_labels_lose_mahalanobis_alone() -> None:
    result = found(asking(judged(), train=noise(60, seed=9, name="bare")))
    assert set(SCORES) - set(result.scores) == {"mahalanobis"}
    assert "has no label" in result.notes[0]


def test_features_that_take_too_much_memory_make_the_bank_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [judged(0), judged(1)]
    every = unknown(asking(*models)).calls.classifier
    monkeypatch.setattr(scoring, "BANK_BYTES", 2 * 24 * 4 * 55 + 4)
    assert every - unknown(asking(*models)).calls.classifier == 2 * 5
    result = found(asking(*models))
    assert result.scores == SCORES
    assert result.settings["bank"] == 55
    assert result.notes == ("55 of 60 training images are asked about, a seeded choice; more take too much memory",)


def test_fewer_training_images_than_neighbours_are_no_other_knn() -> None:
    result = found(asking(judged(), train=TRAIN.subset(range(0, 60, 4))))
    assert set(SCORES) - set(result.scores) == {"knn"}
    assert result.notes == ("left out: knn, because its k is 50 and there are 15 training images",)
    assert result.mean("net 0", "near") is None
    assert "no headline mean, which is of msp, energy, knn" in result.content().notes
    whole = found(asking(judged()))
    mean = whole.mean("net 0", "near")
    assert mean is not None
    assert mean.of == HEADLINE
    assert "headline: the mean of msp, energy, knn" in whole.content().notes
