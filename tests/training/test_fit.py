"""Training: it learns what can be learned, learns nothing from random labels, and continues bit for bit."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.training import toys
from torch import nn

from rediffuse.data import Mixed
from rediffuse.data.images import to_tensor
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.methods.augmix import AugMix
from rediffuse.training import fit_classifier
from rediffuse.training.augment import StandardViews
from rediffuse.training.backbones import open_backbone
from rediffuse.training.classifier import Classifier
from rediffuse.training.fit import as_pool
from rediffuse.training.linear import FeatureBank, fit_head
from rediffuse.training.loop import fit_network
from rediffuse.training.objectives import plain
from rediffuse.training.pool import PixelBank, Pool, labels_of, pool_of
from rediffuse.training.settings import LINEAR, WHOLE, TrainSettings

FAST = TrainSettings(steps=12, batch=8, learning_rate=2e-3, weight_decay=0.05)


def share_right(classifier: Classifier, images: object) -> float:
    found = classifier.predict(PixelBank(16).of(images)).argmax(1)  # type: ignore[arg-type]
    return float((found == labels_of(images)).float().mean())  # type: ignore[arg-type]


def test_stripes_are_learned_and_random_labels_are_not() -> None:
    test = toys.striped(20, seed=9, start=100)
    # Rotation would mix the directions.
    views = StandardViews(rotation=0, flips=False)
    learned = []
    for random_labels in (False, True):
        images = toys.striped(20, seed=1, random_labels=random_labels)
        start = open_backbone("scratch", images.classes, size=16)
        settings = TrainSettings(steps=60, batch=16, learning_rate=2e-3, weight_decay=0.05)
        learned.append(share_right(fit_network(start, pool_of(images, None, PixelBank(16)), settings=settings, views=views), test))
    assert learned[0] > 0.9
    assert learned[1] < 0.5


def test_a_killed_training_continues_to_the_same_weights(tmp_path: Path) -> None:
    images = toys.striped(4)
    pool = pool_of(images, toys.copies_of(images, 2), PixelBank(16))

    def train(checkpoint: Path | None, stop: int | None = None) -> Classifier:
        def perhaps_stop(done: int, _: int) -> None:
            if done == stop:
                raise KeyboardInterrupt

        start = open_backbone("scratch", images.classes, seed=5, size=16)
        return fit_network(start, pool, settings=FAST, seed=5, checkpoint=checkpoint, checkpoint_every=4, progress=perhaps_stop)

    whole = train(None)
    for stop in (3, 7, 11):  # before the first checkpoint, between two, before the last
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "state.pt", stop)
    continued = train(tmp_path / "state.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, continued.state_dict()[name]), name
    steps: list[int] = []
    start = open_backbone("scratch", images.classes, seed=5, size=16)
    fit_network(start, pool, settings=FAST, seed=5, checkpoint=tmp_path / "state.pt", progress=lambda done, _: steps.append(done))
    assert steps == []  # all of it was done already


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_the_step_under_way(tmp_path: Path) -> None:
    """A small training is stopped long before its first checkpoint by steps."""
    images = toys.striped(4)

    def train(checkpoint: Path | None, stop: int | None = None) -> tuple[Classifier, list[int]]:
        done: list[int] = []

        def press(step: int, _: int) -> None:
            done.append(step)
            if step == stop:
                signal.raise_signal(signal.SIGINT)

        options = {"settings": FAST, "seed": 5, "checkpoint": checkpoint, "progress": press}
        start = open_backbone("scratch", images.classes, seed=5, size=16)
        return fit_network(start, pool_of(images, None, PixelBank(16)), **options), done  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "state.pt", 3)
    continued, done = train(tmp_path / "state.pt")
    assert done == list(range(5, FAST.steps + 1))  # the fourth was under way, and is kept
    whole, _ = train(None)
    assert all(torch.equal(value, continued.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    images = toys.striped(2)
    path = tmp_path / "state.pt"
    options = {"steps": 2, "batch": 4, "size": 16, "checkpoint": path}
    fit_classifier(images, images.classes, **options)
    with pytest.raises(ConfigError, match="another training"):
        fit_classifier(images, images.classes, seed=1, **options)
    with pytest.raises(ConfigError, match="another training"):
        fit_classifier(images.subset(range(7)), images.classes, **options)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="remove it to begin again"):
        fit_classifier(images, images.classes, **options)


def test_training_is_a_function_of_its_seed_and_leaves_torch_alone() -> None:
    images = toys.striped(2)
    before = torch.get_rng_state()
    first, again, other = (fit_classifier(images, images.classes, steps=3, batch=4, size=16, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_a_head_finds_what_logistic_regression_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 12, generator=generator)
    labels = torch.arange(5).repeat_interleave(40)
    items = (centres[labels] + 0.9 * torch.randn(200, 12, generator=generator)) * 37.0  # a scale that no learning rate was made for
    held = (centres[labels] + 0.9 * torch.randn(200, 12, generator=generator)) * 37.0
    pool = Pool.build(items[:, None], labels, None, [()] * 200, 0.0)
    ours = fit_head(pool, 5, settings=LINEAR)
    theirs = LogisticRegression(max_iter=2000).fit((items / 37).numpy(), labels.numpy())
    with torch.no_grad():
        right = float((ours(held).argmax(1) == labels).float().mean())
    assert right > theirs.score((held / 37).numpy(), labels.numpy()) - 0.03


def test_a_head_learns_from_every_view() -> None:
    labels = torch.arange(2).repeat(50)
    items = torch.randn(100, 2, 8, generator=torch.Generator().manual_seed(0))
    items[:, 1] += 4 * torch.nn.functional.one_hot(labels, 8)  # only the second view tells the classes apart
    head = fit_head(Pool.build(items, labels, None, [()] * 100, 0.0), 2)
    assert float((head(items[:, 1]).argmax(1) == labels).float().mean()) > 0.95


def test_an_objective_needs_the_whole_network() -> None:
    images = toys.striped(2)
    with pytest.raises(ConfigError, match="a head on frozen features, which sees no views"):
        fit_classifier(images, images.classes, level="resnet-64", mode="linear", objective=plain(2))
    one, two = (fit_classifier(images, images.classes, steps=2, size=16, objective=plain(views)).state_dict() for views in (1, 2))
    usual = fit_classifier(images, images.classes, steps=2, size=16).state_dict()
    assert all(torch.equal(one[name], usual[name]) for name in usual)
    assert any(not torch.equal(two[name], usual[name]) for name in usual)


def test_linear_training_changes_the_head_alone(tmp_path: Path) -> None:
    folder = toys.resnet_folder(tmp_path / "net")
    images = toys.striped(6)
    trained = fit_classifier(images, images.classes, level=str(folder), size=16, steps=50)
    start = open_backbone(str(folder), images.classes)
    for name, value in start.state_dict().items():
        same = torch.equal(value, trained.state_dict()[name])
        assert same != name.startswith("model.classifier"), name
    assert not trained.training


def test_a_network_with_two_heads_is_no_linear_one(tmp_path: Path) -> None:
    """Its logits are the mean of two heads, of which one alone would learn."""
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    DeiTForImageClassificationWithTeacher(DeiTConfig(**small, image_size=16, patch_size=8)).save_pretrained(tmp_path / "net")
    images = toys.striped(2)
    says = "DeiTForImageClassificationWithTeacher: its logits are not those of one linear head alone .* choose mode whole"
    with pytest.raises(ConfigError, match=says):
        fit_classifier(images, images.classes, level=str(tmp_path / "net"), mode="linear", steps=2, size=16)
    with pytest.raises(ConfigError, match=says):
        FeatureBank(open_backbone(str(tmp_path / "net"), images.classes), PixelBank(16), flips=False).of(images)
    fit_classifier(images, images.classes, level=str(tmp_path / "net"), mode="whole", steps=2, size=16)


def test_what_no_head_can_be_learned_from(tmp_path: Path) -> None:
    labels = torch.arange(2).repeat(3)
    items = torch.rand(6, 1, 4, generator=torch.Generator().manual_seed(0))
    pool = Pool.build(items, labels, None, [()] * 6, 0.0)
    with pytest.raises(ModelError, match=r"the head's weights became NaN or infinity; lower learning_rate \(now 1e\+20\)"):
        fit_head(pool, 2, settings=replace(LINEAR, steps=5, learning_rate=1e20))
    items[4, 0, 1] = torch.nan
    with pytest.raises(ModelError, match=r"features of 1 of 6 pictures hold NaN or infinity.*choose another network"):
        fit_head(pool, 2)
    images = toys.striped(2)
    broken = open_backbone(str(toys.resnet_folder(tmp_path / "net")), images.classes)
    next(broken.model.parameters()).data.fill_(torch.nan)
    with pytest.raises(ModelError, match="features of 8 of 8 pictures hold NaN"):
        fit_classifier(images, images.classes, level=broken, mode="linear", steps=2, size=16)


def test_linear_training_counts_every_view_and_predicting_every_picture(tmp_path: Path) -> None:
    images = toys.striped(70, classes=2)  # 140 pictures: two calls
    folder = toys.resnet_folder(tmp_path / "net")
    said: list[tuple[int, int]] = []
    made = fit_classifier(
        images, images.classes, level=str(folder), steps=2, size=16, flips=True, progress=lambda *given: said.append(given)
    )
    assert said == [(128, 280), (140, 280), (268, 280), (280, 280)]
    said.clear()
    made.predict(PixelBank(16).of(images, lambda *given: said.append(given)), lambda *given: said.append(given))
    assert said == [(done, 140) for done in (*range(1, 141), 128, 140)]


def test_features_are_computed_once(tmp_path: Path) -> None:
    classifier = open_backbone(str(toys.resnet_folder(tmp_path / "net")), ["a", "b"])
    calls: list[int] = []
    classifier.model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(len(kwargs["pixel_values"])), with_kwargs=True)
    images = toys.striped(3, classes=2)
    bank = FeatureBank(classifier, PixelBank(16), flips=True)
    found = bank.of(images)
    assert found.shape == (6, 2, 16)
    assert sum(calls) == 12
    assert torch.equal(bank.of(images.subset([4, 1])), found[[4, 1]])
    bank.of(toys.copies_of(images, 1))
    assert sum(calls) == 24
    pixels = PixelBank(16).of(images)
    assert torch.allclose(found[:, 1], classifier.features(pixels.flip(-1)), atol=1e-5)


def test_every_kind_of_set_is_taken() -> None:
    images = toys.striped(2)
    made = toys.copies_of(images, 2)
    pairs = [(to_tensor(example.image), example.label) for example in images]
    options = {"steps": 3, "batch": 4, "size": 16, "flips": False}
    plain = fit_classifier(images, images.classes, **options)
    listed = fit_classifier(pairs, images.classes, **options)
    assert torch.equal(plain.head.weight, fit_classifier(Mixed(images, None), images.classes, **options).head.weight)
    assert torch.equal(plain.head.weight, listed.head.weight)
    mixed = fit_classifier(Mixed(images, made, alpha=1.0), images.classes, **options)
    assert not torch.equal(plain.head.weight, mixed.head.weight)


def test_settings_that_make_no_sense() -> None:
    images = toys.striped(1)
    with pytest.raises(ConfigError, match="features that know something"):
        fit_classifier(images, images.classes, mode="linear")
    with pytest.raises(ConfigError, match="got 'both'"):
        fit_classifier(images, images.classes, mode="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="learning_rate must be above 0"):
        fit_classifier(images, images.classes, learning_rate=-1.0)
    with pytest.raises(ConfigError, match="fit must be one of"):
        fit_classifier(images, images.classes, fit="stretch")
    with pytest.raises(DataError, match=r"classes that the other list lacks: 'stripes 2'"):
        fit_classifier(images, images.classes[:2])
    with pytest.raises(DataError, match="outside the 2 classes"):
        fit_classifier([(to_tensor(example.image), example.label) for example in images], images.classes[:2])
    with pytest.raises(ConfigError, match="the transform of this Mixed would not be seen"):
        fit_classifier(Mixed(images, None, transform=to_tensor), images.classes)
    with pytest.raises(ConfigError, match="objective must be an Objective"):
        fit_classifier(images, images.classes, objective=AugMix())  # type: ignore[arg-type]
    with pytest.raises(DataError, match="item 0 must be"):
        fit_classifier([("x", 0)], images.classes)
    with pytest.raises(DataError, match="lower learning_rate"):
        fit_classifier(images, images.classes, learning_rate=1e30, steps=8, batch=4, size=16)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (torch.full((3, 16, 16), -0.5), r"from \[-1, 1\] use"),
        (torch.full((3, 16, 16), 200.0), r"from \[0, 255\] use"),
        (torch.full((3, 16, 16), 200), r"int64.*/ 255"),
        (torch.full((3, 16, 16), torch.nan), "finite"),
    ],
)
def test_items_of_another_range_or_type_are_named(image: torch.Tensor, says: str) -> None:
    with pytest.raises(DataError, match=f"item 1: .*{says}"):
        as_pool([(torch.zeros(3, 16, 16), 0), (image, 1)], ("a", "b"), 16, "pad")


def test_a_pool_of_other_pictures_is_named_before_the_head_sees_it() -> None:
    pool = Pool.build(torch.rand(4, 3, 16, 16) * 2 - 1, torch.tensor([0, 1, 0, 1]), None, [()] * 4, 0.0)
    with pytest.raises(DataError, match="must be uint8"):
        as_pool(pool, ("a", "b"), 16, "pad")
    with pytest.raises(DataError, match=r"uint8 or features as float32, got torch\.float64"):
        replace(pool, items=pool.items.double())
    with pytest.raises(DataError, match=r"one a real item of 4 items in all, got \(5,\)"):
        replace(pool, labels=torch.zeros(5, dtype=torch.int64))


def test_items_of_bytes_stay_as_they_are() -> None:
    dots = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    pool, _ = as_pool([(dots, 0), (dots.float() / 255, 1)], ("a", "b"), 4, "pad")
    assert torch.equal(pool.items, torch.stack([dots, dots]))


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    rates = [WHOLE.rate(step) for step in range(WHOLE.steps)]
    warm = round(WHOLE.warmup * WHOLE.steps)
    assert rates[0] == pytest.approx(WHOLE.learning_rate / warm)
    assert max(rates) == pytest.approx(WHOLE.learning_rate)
    assert rates[-1] < 1e-3 * WHOLE.learning_rate
    assert all(a >= b for a, b in zip(rates[warm:], rates[warm + 1 :], strict=False))


def test_a_trained_network_is_saved_as_it_is(tmp_path: Path) -> None:
    images = toys.striped(2)
    trained = fit_classifier(images, images.classes, steps=3, batch=4, size=16)
    again = Classifier.load(trained.save(tmp_path / "model"))
    assert again.classes == images.classes
    pixels = PixelBank(16).of(images)
    assert torch.allclose(again.predict(pixels), trained.predict(pixels), atol=1e-5)


@pytest.mark.parametrize("numbers", [torch.float16, torch.bfloat16])
def test_a_head_is_learned_on_features_in_half_precision(numbers: torch.dtype, tmp_path: Path) -> None:
    images = toys.striped(6)
    starts = [open_backbone(str(toys.resnet_folder(tmp_path / "net")), images.classes, size=16) for _ in range(2)]
    found = []
    for start in (starts[0].to(numbers), starts[1]):
        trained = fit_classifier(images, images.classes, level=start, mode="linear", steps=50, size=16)
        found.append(trained.predict(PixelBank(16).of(images)))
    assert found[0].dtype == torch.float32
    assert torch.allclose(found[0], found[1], atol=0.05 * float(found[1].abs().max()))


def test_a_network_that_ends_in_log_probabilities_has_one_head() -> None:
    images = toys.striped(6)
    body = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, len(images.classes)))
    trained = fit_classifier(images, images.classes, level=nn.Sequential(body, nn.LogSoftmax(1)), mode="linear", steps=50, size=16)
    assert torch.allclose(trained.predict(PixelBank(16).of(images)).exp().sum(1), torch.ones(len(images)), atol=1e-5)
