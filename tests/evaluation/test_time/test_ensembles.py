"""The mean over members: against plain loops, whatever the cutting, with and without early exit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.test_time.views import Projection, pictures
from torch import Tensor, nn

from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.adversarial import losses
from rediffuse.evaluation.test_time.ensembles import Ensemble, Plain, image_seeds


class Scripted(Ensemble):
    """Members whose logits stand in a table: the image's red value says which row, its green one is made to say which member."""

    def __init__(self, table: Tensor, **options: Any) -> None:
        super().__init__(Table(table), **{key: value for key, value in options.items() if key == "chunk"})
        self.members = tuple(f"m{place}" for place in range(table.shape[1]))
        self.reduce, self.early_exit = options.get("reduce", "probabilities"), options.get("early_exit", False)

    @property
    def settings(self) -> dict[str, Any]:
        return {"ensemble": "scripted"}

    def views(self, images: Tensor, member: Tensor, seeds: Tensor) -> Tensor:
        said = images.clone()
        said[:, 1] = (member.double() / 1000).float().view(-1, 1, 1)
        return said


class Table(nn.Module):
    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        row, member = ((1000 * images[:, channel, 0, 0]).round().long() for channel in (0, 1))
        return self.table[row, member]


def numbered(count: int) -> Tensor:
    return (torch.arange(count) / 1000).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


@st.composite
def tables(draw: st.DrawFn) -> Tensor:
    """Logits (N, M, K) of a classifier that is more or less sure, and more or less of one mind."""
    count, members, classes = draw(st.integers(1, 5)), draw(st.integers(1, 11)), draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    own, common = draw(st.sampled_from([0.0, 1.0, 5.0, 40.0])), draw(st.sampled_from([0.0, 2.0, 10.0, 40.0]))
    noise = torch.randn(count, members, classes, generator=generator, dtype=torch.float64)
    return own * noise + common * torch.randn(count, 1, classes, generator=generator, dtype=torch.float64)


@settings(max_examples=80)
@given(table=tables(), chunk=st.integers(1, 20))
def test_early_exit_never_changes_a_decision(table: Tensor, chunk: int) -> None:
    images = numbered(len(table))
    every = Scripted(table, chunk=chunk).predict(images)
    early = Scripted(table, chunk=chunk, early_exit=True)
    found = early.predict(images)
    assert torch.equal(found.decisions, every.decisions)
    assert torch.equal(every.asked, torch.full((len(table),), table.shape[1]))
    assert early.classifier.asked == int(found.asked.sum())
    for row, asked in enumerate(found.asked.tolist()):
        assert torch.allclose(found.probabilities[row].double(), table[row, :asked].softmax(-1).mean(0), atol=1e-6)


def test_sure_classifiers_of_one_mind_are_asked_half_as_often() -> None:
    table = torch.zeros(4, 10, 3)
    table[:, :, 1] = 30
    done: list[tuple[int, int]] = []
    found = Scripted(table, early_exit=True).predict(numbered(4), progress=lambda *counts: done.append(counts))
    assert found.asked.tolist() == [6] * 4
    assert done == [(2, 4), (4, 4)]


def test_one_that_could_still_be_overtaken_is_asked_on() -> None:
    """Five for the first class, then five for the second: the last member decides."""
    table = torch.zeros(1, 11, 2)
    table[0, :5, 0], table[0, 5:10, 1], table[0, 10, 1] = 30, 30, 30
    found = Scripted(table, early_exit=True).predict(numbered(1))
    assert found.predicted.tolist() == [1]
    assert found.decisions[0, 4].item() == 0
    assert found.asked.tolist() == [11]


@settings(max_examples=40)
@given(table=tables(), chunk=st.integers(1, 60), reduce=st.sampled_from(["probabilities", "logits"]))
def test_decisions_and_probabilities_are_those_of_every_prefix(table: Tensor, chunk: int, reduce: Any) -> None:
    found = Scripted(table, chunk=chunk, reduce=reduce).predict(numbered(len(table)))
    for row in range(len(table)):
        for end in range(1, table.shape[1] + 1):
            seen = table[row, :end]
            mean = seen.softmax(-1).mean(0) if reduce == "probabilities" else seen.mean(0).softmax(0)
            best = mean.topk(2).values
            if best[0] - best[1] > 1e-9:  # else either is right
                assert found.decisions[row, end - 1].item() == mean.argmax().item()
        assert torch.allclose(found.probabilities[row].double(), mean, atol=1e-6)


def test_forward_is_the_log_of_what_is_predicted() -> None:
    table = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    for reduce in ("probabilities", "logits"):
        ensemble = Scripted(table, reduce=reduce)
        assert torch.allclose(ensemble(numbered(3)).exp(), ensemble.predict(numbered(3)).probabilities, atol=1e-6)


def test_the_classifier_alone_is_its_own_prediction_in_evaluation_mode() -> None:
    classifier, images = Projection().train(), pictures(9)
    classifier.drop.eval()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    plain = Plain(classifier, chunk=4)
    done: list[tuple[int, int]] = []
    found = plain.predict(images, progress=lambda *counts: done.append(counts))
    assert (classifier.training, classifier.norm.training, classifier.drop.training) == (True, True, False)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    expected = classifier.eval()(images).softmax(1)
    assert torch.allclose(found.probabilities, expected, atol=1e-6)
    assert torch.equal(found.predicted, expected.argmax(1))
    assert torch.allclose(found.confidence, expected.max(1).values, atol=1e-6)
    assert done == [(4, 9), (8, 9), (9, 9)]


def test_no_images_are_no_predictions() -> None:
    assert Plain(Projection()).predict(pictures(0)).probabilities.shape == (0, 4)


def test_seeds_of_images_are_their_own() -> None:
    seeds = image_seeds(0, ["a", "b", "c"])
    assert seeds.dtype == torch.int64
    assert torch.equal(image_seeds(0, ["c", "a"]), seeds[[2, 0]])
    assert not set(image_seeds(1, ["a", "b", "c"]).tolist()) & set(seeds.tolist())
    assert bool((seeds >= 0).all())


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (pictures(2) * 2 - 1, r"\[0, 1\]"),
        ((pictures(2) * 255).to(torch.uint8), "uint8"),
        (pictures(2)[:, :2], r"3 channels .*, got shape \(2, 2, "),
        (pictures(2) * torch.nan, "nan"),
    ],
)
def test_pictures_that_cannot_be_seen(images: Tensor, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Plain(Projection()).predict(images)


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        Plain(Projection(), chunk=0)
    with pytest.raises(ConfigError, match=r"seeds must be \(2,\) int64"):
        Plain(Projection()).predict(pictures(2), torch.zeros(3, dtype=torch.int64))


class Apple(Tensor):
    """As on Apple's devices, which have no float64."""

    def double(self) -> Tensor:  # type: ignore[override]
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")

    def cpu(self) -> Tensor:  # type: ignore[override]
        return self.as_subclass(Tensor)


def test_devices_without_float64_are_asked_too() -> None:
    class Far(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :3].as_subclass(Apple)

    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits, labels = images.flatten(1)[:, :3], torch.tensor([0, 1, 2, 0])
    assert torch.allclose(Plain(Far()).predict(images).probabilities.double(), logits.double().softmax(1))
    for loss in ("cross_entropy", "margin"):
        assert torch.equal(losses(logits.as_subclass(Apple), labels, loss), losses(logits, labels, loss))


def test_numbers_that_are_not_finite_are_no_decision() -> None:
    """Of NaN the largest is the first class, with an accuracy and all."""
    ensemble = Scripted(torch.tensor([[[0.0, 1.0], [2.0, 0.0]], [[0.0, 1.0], [math.nan, 0.0]]], dtype=torch.float64))
    assert ensemble.predict(numbered(1)).decisions.tolist() == [[1, 0]]
    with pytest.raises(ModelError, match="the classifier gives logits that are NaN or infinite; train or fetch it again"):
        ensemble.predict(numbered(2))
    with pytest.raises(ModelError, match="NaN or infinite"):
        ensemble(numbered(2))


def test_views_that_are_not_finite_are_their_makers_fault() -> None:
    class Broken(Plain):
        def views(self, images: Tensor, member: Tensor, seeds: Tensor) -> Tensor:
            return images * math.nan

    with pytest.raises(ModelError, match="shown pictures that are NaN or infinite; a denoiser that made them wants --dtype float32"):
        Broken(Projection()).predict(pictures(2))
