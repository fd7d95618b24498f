"""What is trained on what: labels by their classes' names, sets by their paths, own networks, and what taught a classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training import toys
from torch import Tensor, nn

from rediffuse.data import Mixed, folder
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.judged import Judged
from rediffuse.training import fit_classifier
from rediffuse.training.backbones import open_backbone
from rediffuse.training.classifier import UNSAVED, Classifier
from rediffuse.training.objectives import plain
from rediffuse.training.pool import PixelBank, labels_of
from rediffuse.training.trained_on import learned_by, write_learned


def share_right(classifier: Classifier, images: object) -> float:
    found = classifier.predict(PixelBank(16).of(images)).argmax(1)  # type: ignore[arg-type]
    return float((found == labels_of(images)).float().mean())  # type: ignore[arg-type]


def test_labels_are_matched_by_the_names_of_their_classes(tmp_path: Path) -> None:
    images, views = toys.striped(20, seed=1), {"steps": 60, "batch": 16, "learning_rate": 2e-3, "flips": False, "size": 16}
    turned = tuple(reversed(images.classes))
    learned = fit_classifier(Mixed(images, None), turned, **views)  # type: ignore[arg-type]
    assert learned.classes == turned
    assert share_right(learned, images.with_classes(turned)) > 0.8


def test_a_set_may_be_named_by_its_path(tmp_path: Path) -> None:
    images = toys.striped(2)
    for row, example in enumerate(images):
        (tmp_path / "photos" / images.classes[example.label or 0]).mkdir(parents=True, exist_ok=True)
        example.image.save(tmp_path / "photos" / images.classes[example.label or 0] / f"{row}.png")
    options = {"steps": 2, "batch": 4, "size": 16}
    named = fit_classifier(tmp_path / "photos", images.classes, **options)  # type: ignore[arg-type]
    opened = fit_classifier(folder(tmp_path / "photos"), images.classes, **options)  # type: ignore[arg-type]
    assert torch.equal(named.head.weight, opened.head.weight)
    assert named.learned == opened.learned == set(images.digests)


class OwnNet(nn.Module):
    """A network that knows nothing of transformers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.out = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.body(x))
        return result


def test_a_network_of_ones_own_is_trained_and_judged(tmp_path: Path) -> None:
    images, held = toys.striped(20, seed=1), toys.striped(10, seed=9, start=100)
    network = OwnNet(len(images.classes))
    options = {"steps": 150, "batch": 16, "learning_rate": 2e-3, "flips": False, "size": 16}
    learned = fit_classifier(images, images.classes, level=network, objective=plain(2), **options)  # type: ignore[arg-type]
    assert learned.model is network  # in place
    assert share_right(learned, held) > 0.8
    assert Judged(learned, learned.classes).logits(PixelBank(16).of(held).float() / 255).shape == (len(held), len(images.classes))
    trunk, before = network.body[0].weight.detach().clone(), network.out.weight.detach().clone()  # type: ignore[union-attr]
    fit_classifier(images, images.classes, level=learned, mode="linear", size=16, steps=3)
    assert torch.equal(network.body[0].weight, trunk)  # type: ignore[arg-type]
    assert not torch.equal(network.out.weight, before)
    with pytest.raises(DataError, match="at least two classes, got 1"):
        fit_classifier([(torch.rand(3, 16, 16), 0)], ["one"], level=OwnNet(1), size=16)
    with pytest.raises(ConfigError, match="these weights are random"):
        fit_classifier(images, images.classes, level=open_backbone("scratch", images.classes, size=16), mode="linear", size=16)
    with pytest.raises(ConfigError, match=r"OwnNet is none of transformers' networks.*state_dict"):
        learned.save(tmp_path / "net")
    assert not (tmp_path / "net").exists()
    with pytest.raises(ModelError, match=r"OwnNet gives \(\d+, 3\) where logits"):
        fit_classifier(images, images.classes, level=OwnNet(3), size=16, steps=1)
    with pytest.raises(ConfigError, match="name the same, in its order"):
        fit_classifier(images, tuple(reversed(images.classes)), level=learned)


def test_a_classifier_keeps_what_taught_it(tmp_path: Path) -> None:
    images, more = toys.striped(2), toys.striped(2, seed=9, start=100)
    made = toys.copies_of(images, 1)
    first = fit_classifier(Mixed(images, made), images.classes, steps=1, batch=4, size=16)
    assert first.learned == {*images.digests, *made.digests}
    again = Classifier.load(first.save(tmp_path / "net"))
    assert again.learned == first.learned
    further = fit_classifier(more, images.classes, level=str(tmp_path / "net"), steps=1, size=16)
    assert further.learned == {*first.learned, *more.digests}
    open_backbone("scratch", images.classes, size=16).save(tmp_path / "net")  # over the other one
    assert Classifier.load(tmp_path / "net").learned == frozenset()
    (tmp_path / "net" / UNSAVED).mkdir()
    write_learned(tmp_path / "net" / UNSAVED, ["of a save that was killed"])
    open_backbone("scratch", images.classes, size=16).save(tmp_path / "net")
    assert Classifier.load(tmp_path / "net").learned == frozenset()
    assert learned_by(nn.Sequential(first)) == first.learned
    with pytest.raises(DataError, match="lower learning_rate"):
        fit_classifier(more, images.classes, level=again, learning_rate=1e30, steps=8, batch=4, size=16)
    assert again.learned == first.learned
