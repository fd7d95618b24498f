"""`evaluate`: one classifier and two, a page that stays a page whatever the classes are called, and errors in a paragraph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Ended, fill
from tests.cli.test_bad_input import refused
from tests.tiny_pixel import tiny_pixel

from rediffuse.cli.evaluate import parse_places
from rediffuse.data import open_images
from rediffuse.data.splits import chosen
from rediffuse.errors import ConfigError
from rediffuse.training.backbones import open_backbone
from rediffuse.training.trained_on import write_learned

HOSTILE = "<img src=x onerror=alert(1)> & \"'"
NAMES = ("cat", "dog", HOSTILE)


def net(folder: Path, seed: int, names: tuple[str, ...] = NAMES) -> Path:
    made = open_backbone("scratch", names, seed=seed, size=32)
    with torch.no_grad():
        made.head.weight.mul_(20)
    return made.save(folder)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two classifiers that know nothing; the name of one is no markup."""
    home = tmp_path_factory.mktemp("nets")
    return net(home / "<b>first", 1), net(home / "second", 2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine photos of three classes, in a table, because a folder cannot have such a name."""
    place = fill(tmp_path / "photos", {"a": 3, "b": 3, "c": 3}, (32, 32))
    rows = [
        f'{folder}/{number}.png,"{name.replace(chr(34), chr(34) * 2)}"'
        for folder, name in zip("abc", NAMES, strict=True)
        for number in range(3)
    ]
    (place / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n", encoding="utf-8")
    return place / "labels.csv"


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    return fill(tmp_path / "strangers", {"other": 5}, (40, 32), first=50)


def test_one_classifier_gets_a_page_and_its_figures(
    rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path, strangers: Path
) -> None:
    ended = rediffuse("evaluate", nets[0], photos, "--far", strangers, "--out", "judged", "--denoiser", "none")
    assert ended.status == 0, ended.err
    assert "about" in ended.err
    assert "in all" in ended.err
    page = Path("judged/report.html").read_text(encoding="utf-8")
    found = json.loads(Path("judged/evaluation.json").read_text(encoding="utf-8"))
    assert f"{100 * found['accuracy']['<b>first']['top1']:.1f} %" in ended.out.replace("\N{NO-BREAK SPACE}", " ")
    for title in ("Accuracy", "Corruptions", "Calibration", "Unknown inputs", "Limits"):
        assert f"<h2>{title}</h2>" in page
    assert "Without entropy: --denoiser none was asked for" in page
    assert "Without entropy, DiffAug ensemble: --denoiser none was asked for." in ended.err
    assert "<b>first" not in page
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "rediffuse evaluate" in page
    words = ["--out", "judged", "--denoiser", "none", "--no-report", "--hours", "0.001"]
    again = rediffuse("evaluate", nets[0], photos, "--far", strangers, *words)
    assert again.status == 0, again.err
    assert "corruptions: 9 images, done" in again.err
    assert "all is there already" in again.err
    assert "Measuring" not in again.err
    assert "about" not in again.err
    assert "The page" not in again.out


def test_two_classifiers_are_compared_in_pairs(rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path) -> None:
    words = ["--suite", "few-shot", "--seed", 3]
    ended = rediffuse("evaluate", *nets, photos, *words)
    assert ended.status == 0, ended.err
    page = Path("evaluation/report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;first against second" in page
    found = json.loads(Path("evaluation/evaluation.json").read_text(encoding="utf-8"))
    first, second = (found["accuracy"][name]["top1"] for name in ("<b>first", "second"))
    assert f"{100 * (first - second):+.1f}".replace("-", "\N{MINUS SIGN}").replace("+0.0", "0.0") in page
    assert "over second" in page
    assert found["corruptions"] is None


def test_a_class_without_photos_is_said_on_the_terminal(rediffuse: Callable[..., Ended], nets: tuple[Path, Path], tmp_path: Path) -> None:
    some = fill(tmp_path / "some", {"cat": 3, "dog": 2}, (32, 32))
    ended = rediffuse("evaluate", nets[1], some, "--suite", "few-shot", "--no-report")
    assert ended.status == 0, ended.err
    assert "these photos show 2 of the 3 classes of second, none of <img src=x" in " ".join(ended.err.split())


def test_photos_that_taught_a_classifier_flatter_it(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path) -> None:
    """Said on the terminal, quiet or not, and on the page; of the classifier alone that learned from them, and of the photos that judge."""
    taught, other = net(tmp_path / "learned", 5), net(tmp_path / "other", 6)
    digests = open_images(photos).digests
    write_learned(taught, digests[:7])
    write_learned(other, ["of quite another photo"])
    words = ["--suite", "few-shot", "--quiet"]
    ended = rediffuse("evaluate", taught, other, photos, *words)
    assert ended.status == 0, ended.err
    said = "7 of these 9 photos taught learned; its accuracy and all that follows are too good: judge by others"
    assert said in ended.err
    assert ended.err.count("photos taught") == 1
    page = Path("evaluation/report.html").read_text(encoding="utf-8")
    assert said in page[page.index("<h2>Limits</h2>") :]
    (note,) = json.loads(Path("evaluation/evaluation.json").read_text(encoding="utf-8"))["notes"]
    assert note.startswith(said)
    fair = rediffuse("evaluate", other, photos, *words, "--out", "fair")
    assert fair.status == 0, fair.err
    assert "photos taught" not in fair.err + Path("fair/report.html").read_text(encoding="utf-8")
    (taught / "trained_on.json").write_text("{", encoding="utf-8")
    refused(rediffuse("evaluate", taught, photos, *words), "trained_on.json", "train again, or remove it")


def test_the_denoiser_joins_later(rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    pixel = tiny_pixel(tmp_path / "pixel", sample_size=32)
    dry = rediffuse("evaluate", nets[1], photos, "--denoiser", pixel, "--dry-run", "--suite", "full", "--size", 32, "--images", 2)
    assert dry.status == 0, dry.err
    for part in ("certificates", "attack", "DDA", "entropy", "DiffAug ensemble"):
        assert f"{part}: 2 images" in dry.out
    assert not Path("evaluation").exists()
    refused_ = rediffuse("evaluate", nets[1], photos, "--denoiser", pixel, "--suite", "full", "--hours", "0.00001")
    refused(refused_, "--hours allows")


def test_the_bundled_denoiser_is_taken_where_it_knows_the_size(
    rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path
) -> None:
    words = ["evaluate", nets[1], photos, "--dry-run", "--images", 2]
    small = rediffuse(*words)
    assert small.status == 0, small.err
    assert "Views by the bundled cifar10-32" in small.err
    assert "entropy: 2 images" in small.out
    large = rediffuse(*words, "--size", 64)
    assert large.status == 0, large.err
    assert "entropy" not in large.out
    assert "Without entropy, DiffAug ensemble: the bundled cifar10-32 knows 32 pixels, and photos are seen at 64; " in large.err
    assert "name a model for 64 with --denoiser, or judge at --size 32." in large.err
    cheap = rediffuse(*words, "--suite", "few-shot", "--size", 64)
    assert cheap.status == 0, cheap.err
    assert "cifar10-32" not in cheap.err
    named = rediffuse(*words, "--denoiser", "cifar10-32", "--size", 64)
    assert "entropy: 2 images" in named.out


def test_bad_input_is_a_paragraph(rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    first = rediffuse("evaluate", nets[1], photos, "--suite", "few-shot")
    assert first.status == 0, first.err
    before = Path("evaluation/evaluation.json").read_bytes()
    refused(rediffuse("evaluate", nets[1]), "MODEL [OTHER] PHOTOS; got 1")
    refused(rediffuse("evaluate", nets[1], photos, "--hours", "nan"), "hours must be a number of at least 0, got nan")
    refused(rediffuse("evaluate", nets[1], nets[1], photos), "the two classifiers are one")
    refused(rediffuse("evaluate", nets[1], f"{nets[1].parent}/../{nets[1].parent.name}/{nets[1].name}/", photos), "classifiers are one")
    refused(rediffuse("evaluate", nets[0], tmp_path / "none", photos), "none")
    other = net(tmp_path / "two classes", 4, ("cat", "dog"))
    refused(rediffuse("evaluate", nets[1], other, photos), "which two classes does not know")
    (tmp_path / "empty").mkdir()
    refused(rediffuse("evaluate", nets[1], photos, "--near", tmp_path / "empty"), "empty")
    refused(rediffuse("evaluate", nets[1], photos, "--far", photos), "are also among the classifier's own")
    assert Path("evaluation/evaluation.json").read_bytes() == before


def test_options_that_a_suite_does_not_ask_for_are_refused(
    rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path, strangers: Path
) -> None:
    cheap = ["evaluate", nets[1], photos, "--suite", "few-shot"]
    for option, value in (("--near", strangers), ("--far", strangers), ("--train", photos), ("--denoiser", "cifar10-32")):
        refused(rediffuse(*cheap, option, value), f"{option} {value} belongs to --suite robust or full, got --suite few-shot; leave it out")
    assert rediffuse(*cheap, "--denoiser", "none", "--dry-run").status == 0
    twice = ["evaluate", nets[1], photos, "--near", strangers, "--far", strangers, "--denoiser", "none"]
    refused(rediffuse(*twice), "too and would count twice; leave one of the two out")
    assert not Path("evaluation").exists()


def test_another_evaluation_is_not_written_over(
    rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    words = ["--suite", "few-shot", "--quiet"]
    assert rediffuse("evaluate", nets[1], photos, *words).status == 0
    before = Path("evaluation/evaluation.json").read_bytes()
    refused(rediffuse("evaluate", nets[0], photos, *words), "evaluation.json judges second by", "write <b>first by", "--out")
    assert Path("evaluation/evaluation.json").read_bytes() == before
    assert rediffuse("evaluate", nets[0], photos, *words, "--dry-run").status == 0
    namesake = net(tmp_path / "elsewhere" / nets[1].name, 9)
    refused(rediffuse("evaluate", namesake, photos, *words), "judges second by", "over it (second of other weights)")
    assert rediffuse("evaluate", *nets, photos, *words).status == 0  # another one joins
    refused(rediffuse("evaluate", nets[1], photos, *words), "judges <b>first and second by")
    Path("evaluation/evaluation.json").write_text("[]", encoding="utf-8")
    refused(rediffuse("evaluate", nets[1], photos, *words), "cannot be read", "give another folder, or remove it")


def test_other_photos_and_settings_are_not_written_over(
    rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    words = ["--suite", "few-shot", "--quiet"]
    assert rediffuse("evaluate", nets[1], photos, *words).status == 0
    copy = tmp_path / "copy"
    shutil.copytree(photos.parent, copy)
    spelled = photos.parent / ".." / photos.parent.name / photos.name
    for same in (copy / photos.name, spelled, photos):  # the photos count, not how they are called
        assert rediffuse("evaluate", nets[1], same, *words).status == 0
    before = Path("evaluation/evaluation.json").read_bytes()
    for options, said in (
        (("--images", 5), "is another evaluation: 9 photos then, 5 now. Give another folder for this one with --out"),
        (("--seed", 1), "seed was 0, now 1"),
        (("--size", 16), "size was 32, now 16"),
        (("--fit", "crop"), 'fit was "pad", now "crop"'),
    ):
        refused(rediffuse("evaluate", nets[1], photos, *words, *options), said, "--out")
    shutil.copy(copy / "a" / "0.png", photos.parent / "a" / "1.png")
    refused(rediffuse("evaluate", nets[1], photos, *words), "9 photos then, 9 others now")
    refused(rediffuse("evaluate", *nets, photos, *words), "9 photos then, 9 others now")
    assert Path("evaluation/evaluation.json").read_bytes() == before
    # An older file does not know its photos: there their name decides, as it did.
    older = {name: value for name, value in json.loads(before).items() if name not in ("photos", "unknown_sets")}
    Path("evaluation/evaluation.json").write_text(json.dumps(older), encoding="utf-8")
    refused(rediffuse("evaluate", nets[1], copy / photos.name, *words), "over it")
    assert rediffuse("evaluate", nets[1], photos, *words).status == 0


def test_an_evaluation_has_a_folder_of_its_own(
    rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path, strangers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", nets[1], photos, "--quiet", "--suite", "few-shot"]
    comparison = tmp_path / "compared"
    (comparison / "cells").mkdir(parents=True)
    (comparison / "settings.json").write_text("{}")
    for place, what in ((comparison, "a comparison"), (nets[0], "a model"), (strangers, "pictures"), (photos.parent, "pictures")):
        before = sorted(place.rglob("*"))
        refused(rediffuse(*words, "--out", place), f"holds {what}; give an evaluation a folder of its own")
        assert sorted(place.rglob("*")) == before
    inside = strangers / "judged"
    assert rediffuse(*words, "--out", inside).status == 0
    assert rediffuse(*words, "--out", inside).status == 0  # and again
    assert [line.reason for line in open_images(strangers).rejected] == ["an evaluation, written by rediffuse; not photos of this set"]
    monkeypatch.chdir(strangers)
    refused(rediffuse(*words, "--out", "."), ". holds pictures; give an evaluation a folder of its own, such as evaluation")


def test_a_smaller_suite_takes_nothing_away(
    rediffuse: Callable[..., Ended], nets: tuple[Path, Path], photos: Path, strangers: Path
) -> None:
    words = ["evaluate", nets[1], photos, "--quiet", "--denoiser", "none"]
    assert rediffuse(*words, "--far", strangers).status == 0
    before = Path("evaluation/evaluation.json").read_bytes()
    refused(rediffuse(*words, "--suite", "few-shot"), "holds corruptions, unknown inputs, which this command does not ask for", "--out")
    refused(rediffuse(*words), "holds unknown inputs, which this command does not ask for")
    others = fill(strangers.parent / "others", {"other": 5}, (40, 32), first=80)
    refused(rediffuse(*words, "--far", others), "strangers, which this command does not ask for")
    assert Path("evaluation/evaluation.json").read_bytes() == before


def test_what_taught_a_classifier_is_not_unknown(rediffuse: Callable[..., Ended], photos: Path, strangers: Path, tmp_path: Path) -> None:
    taught = net(tmp_path / "learned", 5)
    write_learned(taught, open_images(strangers).digests[:2])
    ended = rediffuse("evaluate", taught, photos, "--far", strangers, "--denoiser", "none", "--dry-run")
    refused(ended, "2 of 5 photos of the unknown set", "strangers' taught learned: what is called unknown is known")


def test_the_few_unknown_photos_that_are_known_are_left_out_and_named(
    rediffuse: Callable[..., Ended], photos: Path, strangers: Path, tmp_path: Path
) -> None:
    """One that taught the classifier, and a test photo that --images does not choose; told on the terminal, in the file and on the page."""
    many = fill(tmp_path / "many", {"other": 200}, (32, 32), first=300)
    (judge,) = chosen(open_images(photos), 1, 0).ids
    other = next(name for name in open_images(photos).ids if name != judge)
    shutil.copy(photos.parent / other, many / "other" / "own.png")
    taught = net(tmp_path / "learned", 5)
    write_learned(taught, open_images(many).digests[10:11])
    words = ["evaluate", taught, photos, "--near", many, "--far", strangers, "--denoiser", "none", "--size", 32, "--quiet"]
    ended = rediffuse(*words, "--images", 1)
    assert ended.status == 0, ended.err
    said = "2 of 201 images of the unknown set"
    assert ended.err.count(said) == 1
    found = json.loads(Path("evaluation/evaluation.json").read_text(encoding="utf-8"))
    (note,) = (line for line in found["notes"] if line.startswith(said))  # another one says which classes have no photo
    assert "other/own.png" in note
    assert {row["images"] for row in found["unknown"]["rows"] if row["group"] == "near"} == {199}
    assert said in Path("evaluation/report.html").read_text(encoding="utf-8")
    again = rediffuse(*words, "--images", 1, "--dry-run")
    assert "unknown inputs: 1 images, done" in again.out


def test_photos_become_squares_as_in_the_training(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    place = fill(tmp_path / "photos", {"cat": 6, "dog": 6}, (64, 32))
    trained = rediffuse("train", place, "--steps", 2, "--fit", "crop", "--size", 32, "--quiet")
    assert trained.status == 0, trained.err
    assert json.loads(Path("model/preprocessor_config.json").read_text(encoding="utf-8"))["rediffuse_fit"] == "crop"
    tables = []
    for number, words in enumerate(([], ["--fit", "crop"], ["--fit", "squash"])):
        ended = rediffuse("predict", "model", place, "--per-class", "--out", f"{number}.csv", "--quiet", *words)
        assert ended.status == 0, ended.err
        tables.append(Path(f"{number}.csv").read_text(encoding="utf-8"))
    assert tables[0] == tables[1] != tables[2]
    judged = rediffuse("evaluate", "model", place, "--suite", "few-shot", "--quiet")
    assert judged.status == 0, judged.err
    assert json.loads(Path("evaluation/evaluation.json").read_text(encoding="utf-8"))["fit"] == "crop"


def test_a_classifier_of_imagenet_is_judged_by_ids(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    """The names that hub classifiers have hold crane twice: ids tell the two apart, that name does not."""
    told = {0: "tench, Tinca tinca", 1: "goldfish", 134: "crane", 207: "golden retriever", 340: "zebra", 517: "crane", 954: "banana"}
    names = tuple(({980: "volcano"} | told).get(place, f"thing {place}") for place in range(1000))
    model = net(tmp_path / "net", 3, names)
    place = fill(tmp_path / "val", {"n02012849": 2, "n03126707": 2, "n02391049": 2}, (32, 32))
    words = ["--suite", "few-shot", "--quiet"]
    ended = rediffuse("evaluate", model, place, *words)
    assert ended.status == 0, ended.err
    found = json.loads(Path("evaluation/evaluation.json").read_text(encoding="utf-8"))
    assert sorted({true for true, _, _ in found["accuracy"]["net"]["cells"]}) == [134, 340, 517]
    cranes = fill(tmp_path / "named", {"crane": 1, "zebra": 1}, (32, 32))
    refused(rediffuse("evaluate", model, cranes, *words, "--out", "named"), "'crane', which is several classes", "n02012849 or n03126707")


def test_the_last_place_is_the_images() -> None:
    assert parse_places(["a", "c"]) == (("a",), "c")
    assert parse_places(["a", "b", "c"]) == (("a", "b"), "c")
    with pytest.raises(ConfigError, match="got 4"):
        parse_places("abcd")
