"""Predictions: their curve, their parts and the file that they write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn import metrics

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.results import read_result
from rediffuse.evaluation.test_time.predictions import Predictions

CLASSES = ("cat", "dog", "red bird")


def made_up(count: int, seed: int = 0, settings: str = "a") -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(count, 3, generator=generator).softmax(1)
    decisions = torch.randint(3, (count, 3), generator=generator)
    decisions[:, -1] = probabilities.argmax(1)
    asked = torch.randint(2, 4, (count,), generator=generator)
    return Predictions(
        members=("raw", "t=50", "t=100"),
        probabilities=probabilities,
        decisions=decisions,
        asked=asked,
        seconds=1.5,
        settings={"ensemble": settings},
    )


def labels(count: int) -> list[int]:
    return [row % 3 for row in range(count)]


def test_the_curve_is_the_accuracy_of_every_prefix() -> None:
    found, truth = made_up(50), labels(50)
    expected = [metrics.accuracy_score(truth, found.decisions[:, place]) for place in range(3)]
    assert found.curve(truth) == pytest.approx(expected)
    assert found.accuracy(truth, CLASSES).top1 == pytest.approx(expected[-1])


def test_parts_are_joined_and_taken() -> None:
    parts = [made_up(4, seed) for seed in (0, 1)]
    whole = Predictions.cat(parts)
    assert len(whole) == 8
    assert whole.seconds == 3.0
    again = whole.index([5, 0])
    assert torch.equal(again.probabilities, torch.stack([parts[1].probabilities[1], parts[0].probabilities[0]]))
    assert torch.equal(again.predicted, torch.stack([parts[1].predicted[1], parts[0].predicted[0]]))
    assert torch.equal(again.confidence, again.probabilities.max(1).values)
    for wrong in ([], [parts[0], made_up(2, settings="b")]):
        with pytest.raises(DataError, match="one ensemble"):
            Predictions.cat(wrong)


def test_the_file_holds_the_gain_and_the_curve(tmp_path: Path) -> None:
    found, truth = made_up(60), labels(60)
    path = found.save(truth, CLASSES, "toy", tmp_path, command="rediffuse predict", notes=["a note"])
    stored = read_result(path)
    ours = metrics.balanced_accuracy_score(truth, found.predicted)
    first = metrics.balanced_accuracy_score(truth, found.decisions[:, 0])
    assert stored.headline["accuracy"].value == pytest.approx(ours)
    assert stored.headline["first_member"].value == pytest.approx(first)
    gain = stored.headline["gain"]
    assert gain.value == pytest.approx(ours - first)
    assert gain.low is not None
    assert gain.high is not None
    assert gain.low < gain.value < gain.high
    assert stored.headline["members_asked"].value == pytest.approx(float(found.asked.float().mean()))
    assert [row["top1"] for row in stored.rows] == pytest.approx(found.curve(truth))
    assert [row["member"] for row in stored.rows] == ["raw", "t=50", "t=100"]
    assert stored.rows[2]["asked"] == int((found.asked == 3).sum())
    assert list(stored.notes) == ["settings: ensemble: a", "a note"]
    assert stored.seconds == 1.5


def test_one_member_has_no_gain_over_itself(tmp_path: Path) -> None:
    many = made_up(9)
    one = Predictions(members=("adapted",), probabilities=many.probabilities, decisions=many.decisions[:, -1:], asked=torch.ones(9).long())
    assert set(read_result(one.save(labels(9), CLASSES, "one", tmp_path)).headline) == {"accuracy", "members_asked"}


def test_what_does_not_fit_together() -> None:
    with pytest.raises(ConfigError, match="3 labels"):
        made_up(4).curve([0, 1, 2])
    with pytest.raises(DataError, match="none"):
        made_up(0).save([], CLASSES, "toy")
    with pytest.raises(DataError, match="one column a member"):
        Predictions(
            members=("raw",),
            probabilities=torch.ones(2, 3),
            decisions=torch.ones(2, 2, dtype=torch.int64),
            asked=torch.ones(2, dtype=torch.int64),
        )
