"""Scores of whole sets: what they are, that order and cutting change nothing, that a killed run goes on, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.ood.toys import CLASSES, Rectified, TwoHeads, judged, noise
from tests.training.toys import striped
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from rediffuse.data.images import to_tensor
from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.judged import Judged, batches
from rediffuse.evaluation.ood import scores as rules
from rediffuse.evaluation.ood import scoring
from rediffuse.evaluation.ood.asking import Asked, askable
from rediffuse.evaluation.ood.reference import Reference
from rediffuse.evaluation.ood.result import judge
from rediffuse.evaluation.ood.scoring import Scored, score_sets
from rediffuse.evaluation.ood.sets import without_classes

TRAIN, KNOWN = striped(12, size=8, seed=1), striped(5, size=8, seed=2)
NEAR, FAR = {"grey": noise(11, seed=3, low=90, high=160)}, {"loud": noise(7, seed=4), "dark": noise(9, seed=5, high=60)}
ASKED = Asked(size=8, neighbours=3, batch=5)


def run(models: list[Judged], asked: Asked = ASKED, **given: Any) -> Scored:
    return score_sets(models, given.pop("known", KNOWN), asked=asked, **{"near": NEAR, "far": FAR, "train": TRAIN, **given})


def pictures(images: ImageSet) -> Tensor:
    return torch.cat([part for _, part in batches(images, size=8)])


def test_each_score_is_that_of_the_rules_on_the_whole_set() -> None:
    model = judged()
    found = run([model])
    assert [(part.name, part.group, len(part)) for part in found.sets] == [
        ("stripes", "known", 20), ("grey", "near", 11), ("loud", "far", 7), ("dark", "far", 9),
    ]  # fmt: skip
    bank, _ = model.features(pictures(TRAIN))
    reference = Reference.fit(bank, model.truth(TRAIN), rules.SCORES, 3)
    assert reference.threshold is not None
    assert reference.neighbours is not None
    assert reference.mahalanobis is not None
    features, logits = model.features(pictures(FAR["dark"]))
    head, exact = model.head, features.double()
    assert isinstance(head, nn.Linear)
    wanted = {
        "msp": logits.double().softmax(1).amax(1),
        "max_logit": logits.amax(1).double(),
        "energy": logits.double().logsumexp(1),
        "react": rules.of_altered(rules.react(exact, reference.threshold), head),
        "ash_b": rules.of_altered(rules.ash_b(exact), head),
        "ash_s": rules.of_altered(rules.ash_s(exact), head),
        "scale": rules.of_altered(rules.scale(exact), head),
        "knn": reference.neighbours.score(features),
        "mahalanobis": reference.mahalanobis.score(features),
    }
    for place, name in enumerate(found.scores):
        assert torch.allclose(found.sets[3].values[0, :, place], wanted[name], rtol=1e-5, atol=1e-6), name


def test_neither_order_nor_cutting_nor_company_changes_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run([judged(0)])
    monkeypatch.setattr(scoring, "BLOCK", 4)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()
    others = torch.randperm(48, generator=torch.Generator().manual_seed(1)).tolist()
    cut = run([judged(1), judged(0)], replace(ASKED, batch=3), known=KNOWN.subset(order), train=TRAIN.subset(others))
    assert torch.allclose(cut.sets[0].values[1], whole.sets[0].values[0][order], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(cut.sets[1:], whole.sets[1:], strict=True):
        assert torch.allclose(ours.values[1], theirs.values[0], rtol=1e-5, atol=1e-6)


def test_a_smaller_bank_is_a_choice_that_order_does_not_change() -> None:
    asked = replace(ASKED, bank=10, scores=("knn",))
    others = torch.randperm(48, generator=torch.Generator().manual_seed(1)).tolist()
    first, second = run([judged()], asked), run([judged()], asked, train=TRAIN.subset(others))
    assert torch.allclose(first.sets[1].values, second.sets[1].values, atol=1e-6)
    assert not torch.allclose(first.sets[1].values, run([judged()], replace(asked, seed=1)).sets[1].values, atol=1e-3)
    assert first.settings["bank"] == 10


@pytest.mark.parametrize("at", [3, 50, 70, 94])
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 10)
    told: list[tuple[int, int]] = []

    def kill(done: int, total: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    whole = run([judged(0), judged(1)])
    with pytest.raises(KeyboardInterrupt):
        run([judged(0), judged(1)], keep=tmp_path / "kept", progress=kill)
    models = [judged(0), judged(1)]
    again = run(models, keep=tmp_path / "kept", progress=lambda done, total: told.append((done, total)))
    assert all(torch.equal(ours.values, theirs.values) for ours, theirs in zip(again.sets, whole.sets, strict=True))
    assert told[-1] == (95, 95)
    finished = run(counted := [judged(0), judged(1)], keep=tmp_path / "kept")
    assert [model.network.calls for model in counted] == [0, 0]
    assert all(torch.equal(ours.values, theirs.values) for ours, theirs in zip(finished.sets, whole.sets, strict=True))
    turned = run(models[::-1], far=dict(reversed(FAR.items())), keep=tmp_path / "kept")
    assert [part.name for part in turned.sets] == ["stripes", "grey", "dark", "loud"]
    for ours, theirs in zip(turned.sets, [whole.sets[place] for place in (0, 1, 3, 2)], strict=True):
        assert torch.equal(ours.values, theirs.values.flip(0))  # kept by name, not by place
    with pytest.raises(ConfigError, match="another call"):
        run(models, replace(ASKED, neighbours=4), keep=tmp_path / "kept")
    with pytest.raises(ConfigError, match="another call"):
        run([judged(0), judged(2, name="net 1")], keep=tmp_path / "kept")
    with pytest.raises(ConfigError, match="training images at hand, got 500"):
        run(models, replace(ASKED, neighbours=500), keep=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_unknown_sets_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match=r"unknown set 'loud' .* holds no images"):
        run([judged()], far={"loud": FAR["loud"].subset([])})
    with pytest.raises(DataError, match="give at least one set"):
        run([judged()], near=None, far=None)
    with pytest.raises(
        DataError, match=r"20 of 20 images of the unknown set 'copy' are also among the classifier's own, such as 0/000\.png"
    ):
        run([judged()], far={"copy": KNOWN})
    with pytest.raises(DataError, match=r"20 of 20 images of stripes are also training images, such as 0/000\.png; remove them"):
        run([judged()], train=KNOWN)
    with pytest.raises(DataError, match="48 of 48 images of the unknown set 'copy'"):
        run([judged()], far={"copy": TRAIN})
    with pytest.raises(DataError, match="holds no images; the classifier's own test set"):
        run([judged()], known=KNOWN.subset([]))
    with pytest.raises(ConfigError, match="as near and as far"):
        run([judged()], near=NEAR, far=NEAR)
    with pytest.raises(ConfigError, match="like the known one"):
        run([judged()], far={"stripes": FAR["loud"]})
    with pytest.raises(ConfigError, match=r"scores react, knn, mahalanobis ask for training images"):
        run([judged()], train=None)
    with pytest.raises(ConfigError, match="different names, got net 0, net 0"):
        run([judged(0), judged(0)])
    with pytest.raises(DataError, match="no label"):
        run([judged()], train=noise(30, seed=9))


def mixed(other: ImageSet, *own: Example) -> ImageSet:
    """A set with some of the classifier's own pictures first, under names of their own."""
    first = [replace(example, id=f"own-{place}", label=None) for place, example in enumerate(own)]
    return ImageSet.of([*first, *other], classes=(), name=other.name)


def test_the_classifiers_own_pictures_are_left_out_of_an_unknown_set_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 40)
    clean = noise(396, seed=6)
    alone = run([judged()], near={"grey": clean}, keep=tmp_path / "kept")
    assert alone.notes == ()
    near = {"grey": mixed(clean, KNOWN[0], TRAIN[5], KNOWN[7], KNOWN[3])}
    found = run(counted := [judged()], near=near, keep=tmp_path / "kept")
    assert counted[0].network.calls == 0  # what is really asked about is the same
    assert found.sets[1].values.shape[1] == 396
    assert torch.equal(found.sets[1].values, alone.sets[1].values)
    assert found.notes == (
        "4 of 400 images of the unknown set 'grey' are also among the classifier's own (own-0, own-1, own-2, ...) and left out",
    )
    assert judge(found, resamples=10).content().notes[-1] == found.notes[0]
    one = run([judged()], replace(ASKED, scores=("msp",)), near={"grey": mixed(clean, KNOWN[0])}, far=None, train=None)
    assert one.notes == ("1 of 397 images of the unknown set 'grey' is also among the classifier's own (own-0) and left out",)
    with pytest.raises(DataError, match=r"4 of 399 images of the unknown set 'grey' are also among the classifier's own, such as own-0"):
        run([judged()], near={"grey": mixed(clean[1:], KNOWN[0], TRAIN[5], KNOWN[7], KNOWN[3])})


def test_networks_that_cannot_be_asked_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="features below 0"):
        run([judged(relu=False)])
    plain = askable(judged(relu=False), KNOWN, size=8)
    assert plain == ("msp", "max_logit", "energy", "knn", "mahalanobis")
    assert run([judged(relu=False)], replace(ASKED, scores=plain)).scores == plain
    assert askable(judged(), KNOWN, size=8) == rules.SCORES
    broken = judged()
    with torch.no_grad():
        broken.network.head.bias[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        run([broken])
    elsewhere = Judged(net := Rectified(0), CLASSES, head=net.body)
    with pytest.raises(ModelError, match=r"features below 0|not what makes its logits"):
        run([elsewhere])
    monkeypatch.setattr(scoring, "BANK_BYTES", 24 * 4 * 30)
    with pytest.raises(ConfigError, match="a bank of at most 30 images"):
        run([judged()])


@pytest.mark.parametrize("score", ["knn", "mahalanobis", "scale"])
def test_a_head_that_was_found_must_make_the_logits(score: str) -> None:
    """Of two heads the last is found: its input is half of what the network goes by. Whoever names it has said what features are."""
    net, asked = TwoHeads(), replace(ASKED, scores=("msp", score))
    found = Judged(net, CLASSES, name="two")
    with pytest.raises(ModelError, match=r"the head of two, its last linear layer with an output a class, is not what makes its logits"):
        run([found], asked)
    assert askable(found, KNOWN, size=8) == ("msp", "max_logit", "energy")
    named = Judged(net, CLASSES, head=net.second.head, name="two")
    assert askable(named, KNOWN, size=8) == ("msp", "max_logit", "energy", "knn", "mahalanobis")
    if score == "scale":
        with pytest.raises(ModelError, match=r"the head of two is not what makes its logits; .* leave out the scores react, ash_b"):
            run([named], asked)
    else:
        assert run([named], asked).scores == ("msp", score)


def dipping(below: Tensor) -> Judged:
    """A network whose features are those of a ReLU, but of one picture, of which one is negative."""
    net = Rectified(0)

    def dip(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        found = inputs[0].clone()
        found[net.shown == 1, 0] = -0.25
        return (found,)

    def see(_: nn.Module, inputs: tuple[Tensor]) -> None:
        net.shown = (inputs[0] == below).all(dim=(1, 2, 3)).int()

    net.register_forward_pre_hook(see)
    net.head.register_forward_pre_hook(dip)
    return Judged(net, CLASSES, name="dips")


@pytest.mark.parametrize("images", [TRAIN, KNOWN, NEAR["grey"], FAR["dark"]])
def test_a_feature_that_is_first_negative_late_loses_the_scores_that_want_none(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 6)
    other, below = judged(1), pictures(images)[-1]
    with pytest.raises(ModelError, match=r"dips has features below 0 \(down to -0.25\)"):
        run([other, dipping(below)])
    asked, left = replace(ASKED, leave_out=True), ("msp", "max_logit", "energy", "knn", "mahalanobis")
    found = run([other, dipping(below)], asked, keep=tmp_path / "kept")
    assert found.scores == left
    assert found.notes == (
        "left out: react, ash_b, ash_s, scale, because dips has features below 0 (down to -0.25), so no ReLU comes last",
    )
    alone = run([other], replace(ASKED, scores=left))
    for ours, theirs in zip(found.sets, alone.sets, strict=True):
        assert ours.values.shape == (2, len(theirs), 5)
        assert torch.allclose(ours.values[0], theirs.values[0], rtol=1e-6, atol=1e-8)
        assert bool(ours.values.isfinite().all())
    again = run([other, dipping(below)], asked, keep=tmp_path / "kept")  # blocks tell what was lost in them
    assert (again.scores, again.notes) == (found.scores, found.notes)
    assert all(torch.equal(ours.values, theirs.values) for ours, theirs in zip(again.sets, found.sets, strict=True))
    with pytest.raises(ModelError, match="dips has features below 0"):
        run([other, dipping(below)], keep=tmp_path / "kept")
    with pytest.raises(ModelError, match="dips has features below 0"):
        run([dipping(below)], replace(asked, scores=("react", "scale")))


@pytest.mark.parametrize(("images", "told"), [(11, True), (10, False)])
def test_features_that_are_never_negative_and_never_0_are_no_relus(images: int, told: bool) -> None:
    """Of 96 values an image; below 1,000 nothing is said."""

    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(96, len(CLASSES))

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.head(images.flatten(1)[:, :96].sigmoid())
            return found

    found = askable(Judged(Squashed(), CLASSES), noise(images, seed=1), size=8)
    assert found == (("msp", "max_logit", "energy", "knn", "mahalanobis") if told else rules.SCORES)


@pytest.mark.parametrize("side", [32, 224])
def test_means_over_maps_behind_a_relu_hold_zeros(side: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {"embedding_size": 8, "hidden_sizes": [32, 128], "depths": [1, 1], "layer_type": "basic"}
        net = ResNetForImageClassification(ResNetConfig(num_labels=4, **shape))
    for model in (Judged(net, CLASSES), Judged.open("resnet-64")):
        images = noise(12, seed=2, size=side)
        assert model.features(torch.stack([to_tensor(each.image) for each in images]))[0].numel() >= rules.ZEROS_AMONG
        assert askable(model, images, size=side) == rules.SCORES


def test_a_head_that_is_asked_about_pieces_of_an_image_is_not_taken_for_one() -> None:
    class Pieces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, len(CLASSES))

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.head(images.flatten(2).transpose(1, 2)).mean(1)
            return found

    assert askable(Judged(Pieces(), CLASSES), KNOWN, size=8) == ("msp", "max_logit", "energy")


def test_scores_of_logits_ask_for_no_head_and_no_training_images() -> None:
    class Bare(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    found = run([Judged(Bare(), "abc")], replace(ASKED, scores=("msp", "energy")), train=None)
    assert found.sets[0].values.shape == (1, 20, 2)


def test_classes_are_left_out_by_name() -> None:
    left = without_classes(KNOWN, ["stripes 1", "stripes 3"])
    assert {left.classes[label] for label in left.labels if label is not None} == {"stripes 0", "stripes 2"}
    with pytest.raises(DataError, match=r"no class 'stripe 1' \(did you mean 'stripes 1'\?\)"):
        without_classes(KNOWN, ["stripe 1"])
    with pytest.raises(DataError, match="no image of stripes is left"):
        without_classes(KNOWN, KNOWN.classes)
    with pytest.raises(DataError, match="no label"):
        without_classes(ImageSet.of([replace(KNOWN[0], label=None)], classes=["a"]), ["a"])
