"""`train --augment`: views for robustness from the command line, with a tiny pixel model in a folder."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Ended, fill
from tests.tiny_pixel import tiny_pixel
from tests.training.toys import resnet_folder

from rediffuse.data import folder
from rediffuse.data.geometry import Fit
from rediffuse.training.classifier import Classifier
from rediffuse.training.trained_on import read_learned

BRIEF = ("--size", 16, "--batch", 8, "--epochs", 1)


@pytest.fixture(scope="module")
def pixel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pixel denoiser with random weights, trained at 16 pixels as far as it knows."""
    return tiny_pixel(tmp_path_factory.mktemp("pixel") / "model")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Three classes of eight photos."""
    return fill(tmp_path / "many", {"cat": 8, "dog": 8, "red bird": 8})


def test_diffaug_and_augmix_make_a_transformers_folder(rediffuse: Callable[..., Ended], many: Path, pixel: Path) -> None:
    from transformers import AutoModelForImageClassification

    words = ("--augment", "diffaug", "augmix", "--denoiser", pixel, "--batch", 8, "--epochs", 3, "--ema", 0.9, "--bank-rate", 0.5)
    ended = rediffuse("train", many, "net", *words, "--holdout", 0.25)
    assert ended.status == 0, ended.err
    assert "(4 views) and the denoiser" in ended.err
    assert "(1 calls)" in ended.err  # 18 photos, three times: the bank is never full
    said = " ".join(ended.err.split())
    assert re.search(r"A step of 8 photos takes [\d.]+ s while the bank fills, which lacks 992 views", said) is not None
    assert "held-out photos" in ended.out
    own = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(path.name for path in Path("net").iterdir()) == [*own, "trained_on.json", "training.json"]
    theirs = AutoModelForImageClassification.from_pretrained("net")
    assert set(theirs.config.id2label.values()) == {"cat", "dog", "red bird"}
    assert Classifier.load("net").preprocessing.size == (16, 16)  # the denoiser's: it said at which size it was trained


def test_the_bundled_pixel_model_is_taken_where_none_is_named(rediffuse: Callable[..., Ended], many: Path) -> None:
    ended = rediffuse("train", many, "net", "--augment", "diffaug", "--batch", 8, "--steps", 2, "--fraction", 0.25)
    assert ended.status == 0, ended.err
    assert "(1.25 views) and the denoiser" in ended.err
    assert Classifier.load("net").preprocessing.size == (32, 32)


@pytest.mark.parametrize(
    ("augment", "more", "views"),
    [
        (("noise",), ("--fraction", 0.5), "1.5 views"),
        (("wiener",), (), "2 views"),
        (("plain",), ("--optimizer", "adamw"), "2 views"),
        (("augmix",), ("--objective", "sum"), "2 views"),
        (("deepaugment", "noise"), (), "3 views"),
        (("deepaugment", "augmix"), ("--classifier", "cifar-resnet"), "3 views"),
        (("noise",), ("--objective", "soft", "--classifier", "cifar-vit"), "2 views"),
    ],
)
def test_every_arm_trains(
    rediffuse: Callable[..., Ended], many: Path, augment: tuple[str, ...], more: tuple[object, ...], views: str
) -> None:
    ended = rediffuse("train", many, "net", *BRIEF, "--augment", *augment, *more, "--holdout", 0.5)
    assert ended.status == 0, ended.err
    assert f"({views}" in ended.err
    assert Classifier.load("net").classes == ("cat", "dog", "red bird")


def right(said: str) -> str:
    """The mean over classes that a command prints."""
    found = re.search(r"Right on ([\d.]+%) of held-out|mean over classes ([\d.]+%)", said)
    assert found is not None, said
    return found[1] or found[2]


@pytest.mark.parametrize(
    "words", [("--augment", "plain", "--epochs", 4, "--batch", 8, "--learning-rate", 0.01), ("--steps", 12)], ids=["robust", "plain"]
)
def test_predict_shows_what_train_was_judged_on(rediffuse: Callable[..., Ended], tmp_path: Path, words: tuple[object, ...]) -> None:
    """A network that enlarges its photos: the folder says from which side, so that larger photos are shrunk to that first."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    photos = fill(tmp_path / "large", {"cat": 8, "dog": 8, "red bird": 8}, size=(70, 70))
    test = fill(tmp_path / "test", {"cat": 5, "dog": 5, "red bird": 5}, size=(70, 70), first=50)
    trained = rediffuse("train", photos, "net", "--classifier", "cifar-resnet", "--size", 16, *words, "--test", test)
    assert trained.status == 0, trained.err
    assert "Photos are seen at 16 pixels." in trained.err
    assert (Classifier.load("net").preprocessing.size, Classifier.load("net").preprocessing.side) == ((32, 32), 16)
    tables = {}
    for name, size in {"usual": (), "own": ("--size", 16), "input": ("--size", 32)}.items():
        predicted = rediffuse("predict", "net", test, *size, "--out", f"{name}.csv", "--per-class")
        assert predicted.status == 0, predicted.err
        tables[name] = Path(f"{name}.csv").read_text()
        assert name == "input" or right(predicted.out) == right(trained.out)
    assert tables["usual"] == tables["own"] != tables["input"]
    AutoModelForImageClassification.from_pretrained("net")
    assert AutoImageProcessor.from_pretrained("net").size["height"] == 32


def test_a_large_network_behind_a_small_denoiser_is_named(rediffuse: Callable[..., Ended], many: Path, pixel: Path, tmp_path: Path) -> None:
    known = resnet_folder(tmp_path / "known", size=24)
    words = ("--classifier", known, "--augment", "diffaug", "--denoiser", pixel, "--steps", 2, "--batch", 4)
    ended = rediffuse("train", many, "net", *words)
    assert ended.status == 0, ended.err
    said = " ".join(ended.err.split())
    assert "Photos are seen at 16 pixels, their views too, and enlarged to the 24 that the network takes" in said
    assert "the denoiser knows no larger ones" in said


def test_a_long_training_needs_no_views(rediffuse: Callable[..., Ended], many: Path, tmp_path: Path) -> None:
    """--epochs alone: a whole network under SGD; a known network keeps its own input size; a second set is trained on as well."""
    second = fill(tmp_path / "second", {"dog": 3, "cat": 3}, first=40)
    ended = rediffuse("train", many, "net", *BRIEF, "--second", second, "--holdout", 0.5)
    assert ended.status == 0, ended.err
    assert "6 photos of" in ended.err
    learned = read_learned(Path("net"))
    assert set(folder(second).digests) < learned
    assert len(learned) == 12 + 6
    known = resnet_folder(tmp_path / "known", size=24)
    ended = rediffuse("train", many, "net2", "--classifier", known, "--steps", 2, "--batch", 4, "--learning-rate", 0.001)
    assert ended.status == 0, ended.err
    assert Classifier.load("net2").preprocessing.size == (24, 24)


def test_held_out_photos_do_not_come_back_by_the_second_set(rediffuse: Callable[..., Ended], many: Path, tmp_path: Path) -> None:
    """The same folder again, and one that holds nothing but photos that judge."""
    ended = rediffuse("train", many, "net", *BRIEF, "--second", many, "--holdout", 0.25)
    assert ended.status == 0, ended.err
    said = " ".join(ended.err.split())
    assert f"6 of 24 photos of {many} are held out to judge by, pixel for pixel; they are left out of training." in said
    assert f"18 photos of {many} are trained on as well." in said
    assert len(read_learned(Path("net"))) == 18  # of 24: no photo that judges
    test = fill(tmp_path / "test", {"cat": 2, "dog": 2, "red bird": 2}, first=50)
    refused = rediffuse("train", many, "net2", *BRIEF, "--second", test, "--test", test)
    assert refused.status == 2
    assert f"all 6 photos of {test} are held out to judge by; give others with --second" in " ".join(refused.err.split())


def test_an_interrupted_training_ends_with_the_same_weights(
    rediffuse: Callable[..., Ended], many: Path, pixel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rediffuse.training import cost, loop

    words = ("--augment", "diffaug", "augmix", "--denoiser", pixel, "--batch", 8, "--epochs", 3, "--bank-rate", 0.25, "--ema", 0.5)
    assert rediffuse("train", many, "whole", *words).status == 0
    fit, clock = loop.fit_network, cost.StepClock.__call__
    monkeypatch.setattr(loop, "fit_network", lambda *given, **options: fit(*given, **options, checkpoint_every=2))

    def stop(self: cost.StepClock, done: int, total: int) -> None:
        clock(self, done, total)
        if done == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cost.StepClock, "__call__", stop)
        ended = rediffuse("train", many, "net", *words)
    assert ended.status == 130
    assert "The same command continues" in ended.err
    for name in (".training.pt.partial", "..training.pt.f00f-4711.partial"):
        (Path("net") / name).write_bytes(b"a kill may leave this")
    assert rediffuse("train", many, "net", *words).status == 0
    first, second = (Classifier.load(name).state_dict() for name in ("whole", "net"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not list(Path("net").glob(".*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--denoiser", "x"), "--denoiser x makes views, but none was asked for"),
        (("--augment", "noise", "--fraction", 0), r"--fraction must be in (0, 1], got 0"),
        (("--augment", "noise", "--bank-rate", 2), "--bank-rate must be in (0, 1], got 2"),
        (("--augment", "augmix", "--fraction", 0.5), "are for diffaug, noise, wiener"),
        (("--objective", "consistency"), "--objective consistency needs --augment augmix"),
        (("--augment", "augmix", "--objective", "stand-in"), "needs --augment augmix deepaugment"),
        (("--augment", "plain", "--mode", "linear"), "sees no views"),
        (("--epochs", 2, "--steps", 3), "--steps and --epochs both say how long"),
        (("--epochs", 0), "epochs, pictures and batch must be above 0"),
        (("--augment", "plain", "--batch", 0), "--batch must be at least 1, got 0"),
        (("--epochs", 1, "--batch", 1), "a batch of 1 shows it a single one"),
        (("--augment", "diffaug", "--denoiser", "nowhere"), "there is no model 'nowhere'"),
        (("--augment", "plain", "--ema", 1.5), "momentum and ema must be in [0, 1)"),
        (("--epochs", 1, "--track", "abacus"), "no tracker 'abacus'"),
        (("--augment", "plain", "--fit", "crop:2"), "from 0.1 to 1, such as crop:0.875; got 'crop:2'"),
        (("--dtype", "bfloat16"), "--dtype bfloat16 is for long trainings"),
    ],
)
def test_bad_options(rediffuse: Callable[..., Ended], many: Path, options: tuple[object, ...], said: str) -> None:
    ended = rediffuse("train", many, "net", "--size", 16, *options)
    assert ended.status == 2, ended.out
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not Path("net/config.json").exists()


def test_photos_are_judged_by_the_middle_that_views_start_from(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    """The published way at 224 pixels, small: crops from all of the short side, views and judging from its middle."""
    photos = fill(tmp_path / "wide", {"cat": 8, "dog": 8}, size=(40, 24))
    ended = rediffuse("train", photos, "net", *BRIEF, "--augment", "noise", "wiener", "--fit", "crop:0.8", "--test", photos)
    assert ended.status == 2  # every photo judges
    held = fill(tmp_path / "held", {"cat": 6, "dog": 6}, size=(24, 40), first=50)
    ended = rediffuse("train", photos, "net", *BRIEF, "--augment", "noise", "wiener", "--fit", "crop:0.8", "--test", held)
    assert ended.status == 0, ended.err
    net, images = Classifier.load("net"), folder(held)
    assert (net.preprocessing.side, net.preprocessing.fit) == (16, "crop:0.8")
    middles = torch.stack([Fit(mode="crop:0.8", size=16).to_model(example.image)[0] for example in images])
    predicted = net.predict(middles.mul(255).round().to(torch.uint8)).argmax(1).tolist()
    right = sum(label == found for label, found in zip(images.labels, predicted, strict=True)) / len(images)
    assert f"{right:.1%} of all 12)" in " ".join(ended.out.split())
    ended = rediffuse("predict", "net", held, "--per-class")
    assert ended.status == 0, ended.err
    with open("predictions.csv", newline="", encoding="utf-8") as file:
        said = [float(row["p(cat)"]) for row in csv.DictReader(file)]
    assert said == pytest.approx(net.predict(middles).softmax(1)[:, 0].tolist(), abs=2e-6)


def test_a_latent_model_is_no_denoiser_of_pixels(rediffuse: Callable[..., Ended], many: Path, model: Path) -> None:
    ended = rediffuse("train", many, "net", *BRIEF, "--augment", "diffaug", "--denoiser", model)
    assert ended.status == 2
    assert "unconditional RGB model in pixel space" in ended.err


def test_the_help_names_every_choice() -> None:
    """The command line repeats the library's words, because importing the library would cost --help a second."""
    from typing import get_args

    from rediffuse.cli.robust import Budget, View
    from rediffuse.training.procedure import Optimizer

    assert set(get_args(View)) >= {"diffaug", "augmix", "deepaugment"}
    assert "sgd" in get_args(Optimizer)
    assert Budget().ema == 0
