"""What yardsticks ask of a network: logits and features of any module, labels by name, errors that say what is wrong."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.toys import striped
from torch import Tensor, nn

from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.calibrating import calibrate
from rediffuse.evaluation.judged import CHUNK, Judged, batches, check_models, chunk_of
from rediffuse.evaluation.test_time.ensembles import Plain
from rediffuse.evaluation.test_time.judging import judged_by
from rediffuse.training.backbones import open_backbone
from rediffuse.training.preprocessing import Preprocessing

IMAGES = striped(3, size=16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.out = nn.Linear(48, 5), nn.Dropout(0.5), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.drop(self.body(images.flatten(1)).relu()))


class Half(Net):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.to(self.out.weight.dtype))


def test_what_a_network_raises_names_the_network() -> None:
    class Odd(nn.Module):
        def __init__(self, error: Exception) -> None:
            super().__init__()
            self.error = error

        def forward(self, images: Tensor) -> Tensor:
            raise self.error

    class Pair(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(ModelError, match=r"odd fails on pictures \(1, 3, 8, 8\): ValueError: only squares of 224"):
        Judged(Odd(ValueError("only squares of 224")), ("a", "b"), name="odd").logits(torch.rand(1, 3, 8, 8))
    with pytest.raises(RuntimeError, match="no room"):  # torch's own stay what they are
        Judged(Odd(RuntimeError("no room")), ("a", "b"), name="odd").logits(torch.rand(1, 3, 8, 8))
    with pytest.raises(ModelError, match=r"tuple fails on pictures .* AttributeError: 'tuple' object has no attribute 'logits'"):
        Judged(Pair(), ("a", "b"), name="tuple").logits(torch.rand(1, 3, 8, 8))


def test_any_module_is_asked_in_evaluation_mode_and_left_as_it_was() -> None:
    net, images = Net().train(), torch.rand(7, 3, 4, 4)
    judged = Judged(net, "abcd")
    features, logits = judged.features(images, chunk=3)
    assert torch.allclose(features, net.body(images.flatten(1)).relu(), atol=1e-6)
    assert torch.allclose(logits, net.out(features), atol=1e-6)
    assert torch.equal(judged.logits(images), logits) or torch.allclose(judged.logits(images), logits, atol=1e-6)
    assert net.drop.training
    gradient = torch.autograd.grad(judged(images.requires_grad_()).sum(), images)[0]
    assert gradient.abs().sum() > 0


def test_large_pictures_share_smaller_calls() -> None:
    assert [chunk_of(side**2) for side in (1, 32, 112, 113, 224, 384, 4096)] == [CHUNK, CHUNK, CHUNK, 125, 32, 10, 1]
    net, calls = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)), list[int]()
    net.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    images, shown = torch.rand(70, 3, 224, 224), Preprocessing(height=224, width=224)
    whole = Judged(net, "abcd").logits(images, chunk=70)
    features, logits = Judged(net, "abcd").features(images)
    assert calls == [70, 32, 32, 6]
    assert torch.allclose(logits, whole, atol=1e-6)
    assert torch.allclose(features, images.mean((2, 3)), atol=1e-6)
    calls.clear()
    Judged(net, "abcd", preprocessing=shown).logits(images[..., :8, :8])  # small ones that the network is shown large
    assert calls == [32, 32, 6]
    calls.clear()
    Judged(net, "abcd").logits(images[..., :8, :8])
    assert calls == [70]


def test_preprocessing_comes_before_the_network() -> None:
    wants = Preprocessing(height=4, width=4, mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))
    net, images = Net(), torch.rand(2, 3, 9, 9)
    judged = Judged(net, "abcd", preprocessing=wants)
    assert torch.allclose(judged.logits(images), net.eval()(wants(images)))
    assert torch.equal(judged.as_module()(images), judged(images))
    assert {id(value) for value in judged.as_module().parameters()} == {id(value) for value in net.parameters()}


def test_a_transformers_classifier_needs_nothing_more() -> None:
    classifier = open_backbone("scratch", list("abc"), size=16)
    features, logits = Judged(classifier, classifier.classes).features(torch.rand(2, 3, 16, 16))
    assert features.shape == (2, classifier.head.in_features)
    assert logits.shape == (2, 3)


def test_labels_are_matched_by_name() -> None:
    names = IMAGES.classes
    judged = Judged(nn.Linear(2, len(names) + 1), ["more", *reversed(names)])
    truth = judged.truth(IMAGES)
    assert [judged.classes[index] for index in truth] == [names[label] for label in IMAGES.labels if label is not None]
    with pytest.raises(DataError, match=f"holds '{names[0]}', which Linear does not know"):
        Judged(nn.Linear(2, 3), ["x", "y", *names[1:]]).truth(IMAGES)
    bare = ImageSet.of([IMAGES[0], Example(id="bare", image=IMAGES[0].image, label=None)], classes=names, name="half")
    with pytest.raises(DataError, match="bare of half has no label"):
        judged.truth(bare)


def test_classes_of_one_name_matter_where_images_bear_it(tmp_path: Path) -> None:
    """As in the usual names of ImageNet, which hold crane twice; every other class is judged as ever."""
    names = IMAGES.classes
    saved = open_backbone("scratch", [*names, "crane", "crane"], size=16).save(tmp_path / "net")
    judged = Judged.open(str(saved), name="net")
    found = calibrate(judged, IMAGES, size=16)
    pictures = torch.cat([part for _, part in batches(IMAGES, size=16)])
    told = judged.logits(pictures).argmax(dim=1) == torch.tensor(IMAGES.labels)
    assert found.find("net").as_is.right.tolist() == told.tolist()
    birds = ImageSet.of([Example(id="0", image=IMAGES[0].image, label=0)], classes=["crane"], name="birds")
    first, second = (f"'crane #{len(names) + place}'" for place in range(2))
    with pytest.raises(DataError, match=f"birds holds 'crane', which is several classes of net: {first}, {second}"):
        judged.truth(birds)


def test_what_is_wrong_is_said() -> None:
    net, images = Net(), torch.rand(2, 3, 4, 4)
    with pytest.raises(ModelError, match=r"gives logits \(2, 4\) where images by classes are \(2, 3\); name one class an output"):
        Judged(net, "abc")(images)
    with pytest.raises(ModelError, match="no linear layer with 3 outputs"):
        _ = Judged(net, "abc").head
    with pytest.raises(ConfigError, match="at least two classes, got 'a'"):
        Judged(net, "a")
    with pytest.raises(DataError, match="holds no images"):
        next(batches(IMAGES.subset([]), size=16))
    with pytest.raises(ConfigError, match="batch must be at least 1, got 0"):
        next(batches(IMAGES, size=16, batch=0))
    with pytest.raises(ConfigError, match="different names, got a, a"):
        check_models([Judged(net, "abcd", name="a"), Judged(net, "abcd", name="a")])


def test_numbers_that_are_not_finite_are_told_with_their_cause() -> None:
    """--dtype is the denoiser's: it mends pictures that a denoiser made, and no classifier."""
    net, images = Net(), torch.rand(2, 3, 4, 4)
    with pytest.raises(ModelError, match="pictures that are NaN or infinite; a denoiser that made them wants --dtype float32"):
        Judged(net, "abcd")(images * float("nan"))
    with torch.no_grad():
        net.out.bias[0] = float("nan")
    half = Half()
    half.load_state_dict(net.state_dict())
    for network, fix in ((net, "train or fetch it again"), (half.bfloat16(), "give it in float32, not bfloat16")):
        with pytest.raises(ModelError, match=f"net gives logits that are NaN or infinite; {fix}") as told:
            Judged(network, "abcd", name="net")(images)
        assert "--dtype" not in str(told.value)


def test_all_that_decides_features_tells_a_network_from_others() -> None:
    classifier = open_backbone("scratch", list("abc"), size=16)
    before = Judged(classifier, classifier.classes).identity()
    classifier.preprocessing = replace(classifier.preprocessing, mean=(0.1, 0.2, 0.3))
    assert Judged(classifier, classifier.classes).identity() != before
    net = Net()
    wants = Preprocessing(height=4, width=4)
    found = [
        Judged(net, "abcd"),
        Judged(net, "abcd", head=net.body),
        Judged(net, "abcd", preprocessing=wants),
        Judged(Judged(net, "abcd", preprocessing=wants).as_module(), "abcd"),
        Judged(Judged(net, "abcd").as_module(), "abcd"),
    ]
    told = [json.dumps(each.identity()) for each in found]
    assert len(set(told)) == len(told)
    assert Judged(net, "abcd", head=net.out).identity() == found[0].identity()
    with pytest.raises(ConfigError, match="head of Net must be one of its own layers, got another Linear"):
        Judged(net, "abcd", head=nn.Linear(5, 4))


def test_features_come_from_a_head_that_is_asked_once_an_image() -> None:
    class Twice(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + super().forward(images.flip(-1))

    class Never(Net):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.linear(self.body(images.flatten(1)), self.out.weight)

    for network, rows in ((Twice(), 8), (Never(), 0)):
        with pytest.raises(ModelError, match=rf"a Linear, is asked about {rows} inputs for 4 images; say which layer"):
            Judged(network, "abcd").features(torch.rand(4, 3, 4, 4))


def test_batches_hold_every_image_once() -> None:
    found = list(batches(IMAGES, size=8, batch=5))
    assert [row for rows, _ in found for row in rows] == list(range(len(IMAGES)))
    assert {tuple(part.shape[1:]) for _, part in found} == {(3, 8, 8)}
    assert all(0 <= float(part.min()) <= float(part.max()) <= 1 for _, part in found)


class Cast(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class Whole(Plain):
    """Views are made of the pictures as they are, whatever the classifier's numbers."""

    seen: torch.dtype

    def views(self, images: Tensor, member: Tensor, seeds: Tensor) -> Tensor:
        Whole.seen = images.dtype
        return images


@pytest.mark.parametrize("numbers", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_other_numbers_are_asked_in_theirs(numbers: torch.dtype) -> None:
    net, images = Net(), torch.rand(3, 3, 4, 4)
    wanted = Judged(net, "abcd")(images)
    found = Judged(copy.deepcopy(net).to(numbers), "abcd")(images)
    assert found.dtype == torch.float32
    assert torch.allclose(found, wanted, atol=2e-2)
    mixed = nn.Sequential(nn.Flatten(), copy.deepcopy(net.body).to(numbers), Cast(), nn.ReLU(), net.out)
    with pytest.raises(RuntimeError, match="dtype"):  # which of them it takes only itself can know
        Judged(mixed, "abcd")(images)
    asked = judged_by(Judged(copy.deepcopy(net).to(numbers), "abcd"), lambda inner: Whole(inner), "plain")
    asked(images)
    assert Whole.seen == torch.float32
    classifier, images = open_backbone("scratch", list("abc"), size=16), torch.rand(3, 3, 16, 16)
    wanted = Judged(classifier, classifier.classes)(images)
    assert torch.allclose(Judged(copy.deepcopy(classifier).to(numbers), classifier.classes)(images), wanted, atol=5e-2)
