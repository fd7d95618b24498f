"""`train`: from folders to a transformers folder and an accuracy on photos that were not seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Ended, fill
from tests.training.toys import resnet_folder

from rediffuse.cli.pair import split_names
from rediffuse.data import digits, few_shot, open_images
from rediffuse.training.classifier import Classifier
from rediffuse.training.preprocessing import Preprocessing
from rediffuse.training.trained_on import read_learned, write_learned

SHORT = ("--steps", 30, "--size", 16)


def test_without_a_folder_the_classifier_goes_to_model(rediffuse: Callable[..., Ended], photos: Path) -> None:
    ended = rediffuse("train", photos, "--steps", 1, "--size", 16)
    assert ended.status == 0, ended.err
    assert Path("model/config.json").is_file()


def test_the_folder_is_a_classifier_of_transformers(rediffuse: Callable[..., Ended], photos: Path) -> None:
    ended = rediffuse("train", photos, "net", "--steps", 120, "--size", 16, "--holdout", 0.5)
    assert ended.status == 0, ended.err
    assert "6 of 12 are held out, 50% of each class, at least one." in ended.err
    assert "Writing model shards" not in ended.err  # a bar of transformers
    assert "held-out photos" in ended.out
    assert {path.name for path in Path("net").iterdir()} >= {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert not Path("net/.training.pt").exists()

    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model, processor = AutoModelForImageClassification.from_pretrained("net").eval(), AutoImageProcessor.from_pretrained("net")
    right = 0
    for file in sorted(photos.rglob("*.png")):
        with torch.no_grad():
            best = model(**processor(Image.open(file).convert("RGB"), return_tensors="pt")).logits.argmax().item()
        right += model.config.id2label[best] == file.parent.name
    assert right >= 10  # red, blue and green discs


def test_the_folder_says_what_was_learned_from(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path) -> None:
    """The shots alone, and what the classifier knew before; whoever is judged by that again is told."""
    from rediffuse.data import folder

    known = resnet_folder(tmp_path / "known", size=16)
    write_learned(known, folder(photos).digests[:1])
    test = fill(tmp_path / "judge", {"cat": 2, "dog": 2, "red bird": 2}, first=50)
    ended = rediffuse("train", photos, "net", *SHORT, "--classifier", known, "--shots", 2, "--test", test)
    assert ended.status == 0, ended.err
    assert "taught" not in ended.err
    learned = read_learned(Path("net"))
    assert folder(photos).digests[0] in learned
    assert len(learned & set(folder(photos).digests)) == len(learned) in (6, 7)
    again = rediffuse("train", test, "net2", *SHORT, "--classifier", "net", "--test", photos)
    assert again.status == 0, again.err
    assert f"{len(learned)} of these 12 photos taught net; its accuracy and all that follows are too good" in again.err


def test_the_reported_accuracy_is_that_of_the_saved_classifier(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path) -> None:
    """Counted again from the folder that was written, on the test photos that were given."""
    from rediffuse.data import folder
    from rediffuse.training.pool import PixelBank

    test = fill(tmp_path / "judge", {"cat": 5, "dog": 5, "red bird": 5}, first=50)
    ended = rediffuse("train", photos, "net", *SHORT, "--test", test)
    assert ended.status == 0, ended.err
    held = folder(test)
    guessed = Classifier.load("net").predict(PixelBank(16).of(held)).argmax(1).tolist()
    share = sum(guess == label for guess, label in zip(guessed, held.labels, strict=True)) / len(held)
    assert f"Right on {share:.1%} of held-out photos" in ended.out


def test_synthetic_images_are_mixed_in(rediffuse: Callable[..., Ended], photos: Path, model: Path, tmp_path: Path) -> None:
    words = ("--model", model, "--method", "real-guidance", "--steps", 2, "--copies", 2)
    assert rediffuse("augment", photos, "more", *words).status == 0
    ended = rediffuse("train", photos, "net", *SHORT, "--synthetic", "more", "--alpha", 0.5, "--holdout", 0.25)
    assert ended.status == 0, ended.err
    assert "18 generated images stand in for their 9 photos with probability 0.5" in ended.err
    assert "3 of the held-out photos have generated copies too" in ended.err
    other = fill(tmp_path / "other", {"cat": 2, "dog": 2, "red bird": 2}, first=70)
    fair = rediffuse("train", photos, "net2", *SHORT, "--synthetic", "more", "--test", other)
    assert "24 generated images" in fair.err
    assert "have generated copies too" not in fair.err
    assert read_learned(Path("net2")) == {*open_images(photos).digests, *open_images("more").digests}
    few = rediffuse("train", photos, "net3", *SHORT, "--synthetic", "more", "--shots", 1, "--test", other)
    assert few.status == 0, few.err
    learned, run = read_learned(Path("net3")), open_images("more")
    own = set(few_shot(open_images(photos), 1, 0).ids)
    assert {digest for digest, source in zip(run.digests, run.sources, strict=True) if source in own} < learned
    assert len(learned) == 3 + 3 * 2


def test_frozen_features(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path) -> None:
    features = resnet_folder(tmp_path / "features", size=16)
    ended = rediffuse("train", photos, "net", "--classifier", features, "--size", 16)
    assert ended.status == 0, ended.err
    assert Classifier.load("net").classes == ("cat", "dog", "red bird")


@pytest.mark.parametrize("layout", ["folders", "digits"])
def test_the_own_test_split_judges(rediffuse: Callable[..., Ended], tmp_path: Path, layout: str) -> None:
    data = tmp_path / "sets"
    for place, split in enumerate(("train", "test")):
        fill(data / split, {"cat": 3, "dog": 3}, first=20 * place)
    source, held = (data, 6) if layout == "folders" else ("digits", len(digits(split="test")))
    assert split_names(str(source)) == (("test", "train") if layout == "folders" else ("train", "test"))
    ended = rediffuse("train", source, "net", "--steps", 2, "--size", 16, "--shots", 2)
    assert ended.status == 0, ended.err
    assert f"of all {held})" in ended.out.replace(",", "")
    assert "held out" not in ended.err
    assert f"Judged on the split test of {source} ({held} photos)." in " ".join(ended.err.split())
    refused = rediffuse("train", source, "net2", *SHORT, "--holdout", 0.3)
    assert refused.status == 2
    assert f"--holdout 0.3 is for sets without other photos to be judged on, and {source} brings a split test" in " ".join(
        refused.err.split()
    )


def test_splits_with_classes_are_known_whatever_lies_beside_them(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    """Photos to be told that have no classes judge nothing: some of those with classes are held out."""
    data = fill(tmp_path / "sets" / "train", {"cat": 3, "dog": 3}).parent
    fill(data, {"test": 2})
    assert split_names(str(data)) == ("train",)
    ended = rediffuse("train", data, "net", "--steps", 2, "--size", 16)
    assert ended.status == 0, ended.err
    assert Classifier.load("net").classes == ("cat", "dog")
    fill(data, {"sample/cat": 1, "val/cat": 1})
    assert split_names(str(data)) == ("train", "val")


def test_classes_that_look_like_splits_are_not_taken_for_them(tmp_path: Path) -> None:
    assert split_names(str(fill(tmp_path / "a", {"test": 1, "train": 1}))) == ()
    assert split_names(str(fill(tmp_path / "b", {"cat": 1, "train": 1}))) == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--alpha", 1.5, "--synthetic", "more"), "more"),
        (("--holdout", 0), "--holdout must be above 0 and below 1, got 0"),
        (("--holdout", 1.5), "--holdout must be above 0 and below 1, got 1.5"),
        (("--holdout", 0.3, "--test", "judge"), "and --test judge names some; leave one of the two out"),
        (("--size", 0), "--size must be at least 1, got 0"),
        (("--classifier", "nowhere/to/be/found"), "no classifier at 'nowhere/to/be/found'"),
        (("--mode", "linear"), "resnet-64"),
        (("--test", "nowhere"), "nowhere"),
        (("--split", "val"), "no split 'val'"),
        (("--steps", 0), "--steps must be at least 1, got 0"),
        (("--shots", 40), "40 were asked for"),
    ],
)
def test_bad_options(rediffuse: Callable[..., Ended], photos: Path, options: tuple[object, ...], said: str) -> None:
    ended = rediffuse("train", photos, "net", *options)
    assert ended.status == 2, ended.out
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not Path("net/config.json").exists()


def test_a_folder_in_use_is_refused(rediffuse: Callable[..., Ended], photos: Path) -> None:
    Path("net").mkdir()
    Path("net/config.json").write_text("{}")
    ended = rediffuse("train", photos, "net", *SHORT)
    assert ended.status == 2
    assert "holds a classifier already" in ended.err
    assert Path("net/config.json").read_text() == "{}"


def test_two_trainings_do_not_share_a_folder(rediffuse: Callable[..., Ended], photos: Path) -> None:
    """One that lives is named with the fix; what a dead one left hinders nobody."""
    import json
    import os
    import socket

    Path("net").mkdir()
    lock, left = Path("net/.training.lock"), Path("net/..training.pt.f00f-4711.partial")
    left.write_bytes(b"the first checkpoint, half written")
    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getppid(), "time": "today"}))
    ended = rediffuse("train", photos, "net", *SHORT)
    assert ended.status == 2
    said = " ".join(ended.err.split())
    assert f"is being written by process {os.getppid()}" in said
    assert f"if it is gone for good, remove {lock}" in said
    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "time": "yesterday"}))
    ended = rediffuse("train", photos, "net", *SHORT)
    assert ended.status == 0, ended.err
    assert not list(Path("net").glob(".*"))


@pytest.mark.parametrize("mode", ["whole", "linear"])
def test_a_training_that_was_killed_while_it_was_saved_goes_on(
    rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    start = () if mode == "whole" else ("--classifier", resnet_folder(tmp_path / "start"))
    assert rediffuse("train", photos, "whole", *SHORT, *start).status == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(Preprocessing, "save", killed)
        assert rediffuse("train", photos, "net", *SHORT, *start).status == 130
    assert not Path("net/config.json").exists()
    ended = rediffuse("train", photos, "net", *SHORT, *start)
    assert ended.status == 0, ended.err
    written = [{file.name: file.read_bytes() for file in Path(name).iterdir()} for name in ("net", "whole")]
    assert written[0] == written[1]


def test_test_photos_that_are_all_known_are_refused(rediffuse: Callable[..., Ended], photos: Path) -> None:
    ended = rediffuse("train", photos, "net", *SHORT, "--test", photos)
    assert ended.status == 2
    assert "also test photos" in ended.err


def test_a_photo_that_is_there_twice_is_never_on_both_sides(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    twice = fill(tmp_path / "twice", {"cat": 4, "dog": 4})
    for file in sorted(twice.rglob("*.png")):
        (file.parent / f"again-{file.name}").write_bytes(file.read_bytes())
    ended = rediffuse("train", twice, "net", *SHORT, "--holdout", 0.25)
    assert ended.status == 0, ended.err
    assert "4 of 16 are held out" in ended.err
    assert "also test photos" not in ended.err  # equal ones are on one side
    assert len(read_learned(Path("net"))) == 6
    both = fill(tmp_path / "both", {"cat": 1, "dog": 1})  # a photo of each that is trained on too
    ended = rediffuse("train", twice, "net2", *SHORT, "--test", both)
    assert ended.status == 0, ended.err
    assert "4 of 16 photos are also test photos, pixel for pixel; they are left out of training" in ended.err


def test_a_class_without_a_photo_to_train_on_is_named(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    few = fill(tmp_path / "few", {"cat": 4, "dog": 4, "red bird": 1})
    for number in range(1, 4):
        (few / "red bird" / f"{number}.png").write_bytes((few / "red bird" / "0.png").read_bytes())
    ended = rediffuse("train", few, "net", *SHORT)
    assert ended.status == 0, ended.err
    assert "'red bird' has a single photo, which stays to learn from" in ended.err
    ended = rediffuse("train", few, "net2", *SHORT, "--test", fill(tmp_path / "test", {"cat": 1, "dog": 1, "red bird": 1}))
    assert ended.status == 2
    assert "class 'red bird' has no photo left to train on, because each of its 4 judges too" in " ".join(ended.err.split())


def test_equal_file_names_in_two_splits_are_other_photos(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, tmp_path: Path
) -> None:
    words = ("--model", model, "--method", "real-guidance", "--steps", 2, "--copies", 1)
    assert rediffuse("augment", photos, "more", *words).status == 0
    test = fill(tmp_path / "judge", {"cat": 2, "dog": 2, "red bird": 2}, size=(18, 18))
    ended = rediffuse("train", photos, "net", *SHORT, "--synthetic", "more", "--test", test)
    assert ended.status == 0, ended.err
    assert "have generated copies too" not in ended.err


@pytest.mark.usefixtures("ctrl_c")
def test_a_small_training_that_is_stopped_continues(rediffuse: Callable[..., Ended], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from rediffuse.training import loop

    words = ("train", photos, "net", "--steps", 8, "--size", 16)
    real, steps = loop.Training.step, []

    def step(self: loop.Training, number: int) -> object:
        steps.append(number)
        if steps == [0, 1, 2]:
            signal.raise_signal(signal.SIGINT)
        return real(self, number)

    monkeypatch.setattr(loop.Training, "step", step)
    ended = rediffuse(*words)
    assert ended.status == 130
    assert "The same command continues" in ended.err
    assert rediffuse(*words).status == 0
    assert steps == list(range(8))


def test_a_stopped_head_begins_anew_and_says_so(
    rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rediffuse.training import fit

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "features", stopped)
    ended = rediffuse("train", photos, "net", "--classifier", resnet_folder(tmp_path / "known", size=16), "--size", 16)
    assert ended.status == 130
    assert "Nothing is kept yet; the same command begins anew:\n  rediffuse train" in ended.err


def test_class_names_match_but_for_their_spelling(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path) -> None:
    test = fill(tmp_path / "judge", {"Cat": 2, "DOG": 2, "Red_Bird": 2}, first=50)
    ended = rediffuse("train", photos, "net", *SHORT, "--test", test)
    assert ended.status == 0, ended.err
    assert Classifier.load("net").classes == ("cat", "dog", "red bird")
    fill(tmp_path / "judge", {"zebra": 1}, first=80)
    ended = rediffuse("train", photos, "net2", *SHORT, "--test", test)
    assert ended.status == 2
    said = " ".join(ended.err.split())
    assert f"judge holds 'zebra', which the training set {photos} does not know (cat, dog, red bird)" in said
    assert "rename it as the training set" in said
    twice = fill(tmp_path / "twice", {"CAT": 1, "Cat": 1}, first=90)
    ended = rediffuse("train", photos, "net2", *SHORT, "--test", twice)
    assert ended.status == 2
    assert "'CAT' and 'Cat', which are one class of the training set" in " ".join(ended.err.split())


def test_a_single_photo_is_not_held_out_and_that_is_said(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    few = fill(tmp_path / "few", {"cat": 4, "dog": 4, "red bird": 1})
    ended = rediffuse("train", few, "net", *SHORT)
    assert ended.status == 0, ended.err
    assert "'red bird' has a single photo, which stays to learn from: that class is not judged" in ended.err
    assert "mean over the 2 of 3 classes that have such photos" in ended.out


def test_lost_photos_are_named(rediffuse: Callable[..., Ended], photos: Path) -> None:
    (photos / "a folder").mkdir()
    for number in range(11):
        (photos / "cat" / f"broken{number:02d}.png").write_bytes(b"no picture")
    ended = rediffuse("train", photos, "net", *SHORT)
    assert ended.status == 0, ended.err
    assert ended.err.count("Left out: cat/broken") == 10
    assert "... and 2 more." in ended.err


def test_a_head_has_no_views_and_its_size_is_said_first(
    rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rediffuse.training import fit

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "features", stopped)
    ended = rediffuse("train", photos, "net", "--classifier", resnet_folder(tmp_path / "known", size=24), "--size", 16, "--steps", 3)
    assert ended.status == 130
    assert "Photos are seen at 16 pixels and enlarged to the 24 that the network takes; --size says otherwise." in ended.err


def test_the_help_says_how_many_steps_each_mode_takes(rediffuse: Callable[..., Ended]) -> None:
    """The command line repeats the library's numbers, because importing the library would cost --help a second."""
    from rediffuse.training.settings import DEFAULTS

    said = " ".join(rediffuse("train", "--help").out.replace("│", " ").split())
    whole, linear = DEFAULTS["whole"].steps, DEFAULTS["linear"].steps
    assert f"[default: {whole}; {linear} in mode linear; by --epochs with --augment]" in said
