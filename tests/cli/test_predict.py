"""`predict`: a table of classes, alone and over views, whatever the photos are called and however often it is stopped."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tests.cli.conftest import Ended, fill, photo
from tests.cli.test_bad_input import refused
from tests.tiny import tiny_stable
from tests.tiny_pixel import tiny_pixel
from torch import Tensor

from rediffuse.cli.predict import tell
from rediffuse.data import folder
from rediffuse.data.export import export_folders
from rediffuse.data.geometry import Fit
from rediffuse.data.types import Example, ImageSet
from rediffuse.denoisers.load import load
from rediffuse.evaluation.test_time import predicting
from rediffuse.evaluation.test_time.dda import DDA, DDASettings
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble
from rediffuse.evaluation.test_time.ensembles import Ensemble, image_seeds
from rediffuse.evaluation.test_time.predictions import Predictions
from rediffuse.training.backbones import open_backbone
from rediffuse.training.classifier import Classifier

NAMES = ("cat", "dog", "red bird")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of 16-pixel photos that knows nothing and is not sure of anything."""
    made = open_backbone("scratch", NAMES, seed=3, size=16)
    with torch.no_grad():
        made.head.weight.mul_(20)
    return made.save(tmp_path_factory.mktemp("nets") / "net")


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pixel(tmp_path_factory.mktemp("denoisers") / "pixel")


def rows(path: str = "predictions.csv") -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def seen(photos: Path, size: int = 16) -> Tensor:
    return torch.stack([Fit(size=size).to_model(example.image)[0] for example in folder(photos)])


def test_the_table_is_what_the_classifier_says(rediffuse: Callable[..., Ended], net: Path, photos: Path) -> None:
    ended = rediffuse("predict", net, photos, "--per-class")
    assert ended.status == 0, ended.err
    images = folder(photos)
    probabilities = Classifier.load(net).predict(seen(photos)).softmax(1)
    found = rows()
    assert [row["file"] for row in found] == list(images.ids)
    assert [row["predicted"] for row in found] == [NAMES[place] for place in probabilities.argmax(1).tolist()]
    assert [row["label"] for row in found] == [NAMES[label or 0] for label in images.labels]
    assert [float(row["probability"]) for row in found] == pytest.approx(probabilities.max(1).values.tolist(), abs=2e-6)
    for place, name in enumerate(NAMES):
        assert [float(row[f"p({name})"]) for row in found] == pytest.approx(probabilities[:, place].tolist(), abs=2e-6)
    right = sum(row["predicted"] == row["label"] for row in found) / 12
    assert f"Right on {right:.1%} of 12 photos" in ended.out
    assert "The predictions of 12 photos are in predictions.csv" in ended.out
    assert [child.name for child in Path.cwd().iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize("kind", ["diffaug", "dda", "dda-se"])
def test_an_ensemble_is_that_of_the_library(rediffuse: Callable[..., Ended], net: Path, denoiser: Path, photos: Path, kind: str) -> None:
    short = ("--dda-steps", 3, "--dda-guidance", 1.5, "--dda-factor", 2) if kind != "diffaug" else ()
    ended = rediffuse("predict", net, photos, "--ensemble", kind, "--denoiser", denoiser, "--seed", 5, *short, "--dtype", "float32")
    assert ended.status == 0, ended.err
    classifier, model = Classifier.load(net), load(denoiser, device="cpu", dtype="float32")
    ensemble: Ensemble = DiffAugEnsemble(classifier, model, seed=5)
    if kind != "diffaug":
        ensemble = DDA(classifier, model, DDASettings(steps=3, guidance=1.5, factor=2, self_ensemble=kind == "dda-se"), seed=5)
    expected = ensemble.predict(seen(photos), image_seeds(5, folder(photos).digests))
    assert [float(row["probability"]) for row in rows()] == pytest.approx(expected.confidence.tolist(), abs=1e-5)
    assert [row["predicted"] for row in rows()] == [NAMES[place] for place in expected.predicted.tolist()]
    said = {"diffaug": "10 views of each of 12 photos at 16 pixels; noise (sigma): 0.000 0.013", "dda": "3 guided steps"}
    assert said["diffaug" if kind == "diffaug" else "dda"] in ended.err
    if kind == "diffaug":
        curve = expected.curve([label or 0 for label in folder(photos).labels])
        assert [f"{share:.1%}" in ended.out for share in curve] == [True] * 10


def test_options_reach_the_ensemble(rediffuse: Callable[..., Ended], net: Path, denoiser: Path, photos: Path) -> None:
    views = ("--ensemble", "diffaug", "--denoiser", denoiser, "--dtype", "float32")
    assert rediffuse("predict", net, photos, "--out", "alone.csv").status == 0
    for name, options in {
        "raw": ("--t-max", 0),
        "some": ("--step", 150, "--t-max", 300),
        "again": ("--step", 150, "--t-max", 300, "--batch", 5),
        "early": ("--step", 150, "--t-max", 300, "--early-exit"),
        "logits": ("--step", 150, "--t-max", 300, "--reduce", "logits"),
    }.items():
        ended = rediffuse("predict", net, photos, *views, *options, "--out", f"{name}.csv", "--quiet")
        assert ended.status == 0, ended.err
        assert ended.err == ""

    def column(path: str, name: str) -> list[Any]:
        return [float(row[name]) if name == "probability" else row[name] for row in rows(path)]

    assert column("raw.csv", "probability") == pytest.approx(column("alone.csv", "probability"), abs=2e-6)
    assert column("again.csv", "probability") == pytest.approx(column("some.csv", "probability"), abs=1e-5)
    assert column("early.csv", "predicted") == column("some.csv", "predicted")
    assert column("logits.csv", "probability") != pytest.approx(column("some.csv", "probability"), abs=1e-4)


def test_the_bundled_pixel_model_is_taken_where_none_is_named(rediffuse: Callable[..., Ended], net: Path, photos: Path) -> None:
    for name, named in {"own.csv": (), "named.csv": ("--denoiser", "cifar10-32")}.items():
        words = ("--ensemble", "diffaug", "--t-max", 100, "--size", 32, "--dtype", "float32", "--out", name, "--per-class")
        ended = rediffuse("predict", net, photos, *words, *named)
        assert ended.status == 0, ended.err
        assert "noise (sigma): 0.000 0.025 0.049" in ended.err
    assert rows("own.csv") == rows("named.csv")


def test_photos_without_labels(rediffuse: Callable[..., Ended], net: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(3):
        photo(0, number).save(flat / f"{number}.png")
    (flat / "t.csv").write_text("file,width\n1.png,16\n0.png,16\n")
    ended = rediffuse("predict", net, flat)
    assert ended.status == 0, ended.err
    assert list(rows()[0]) == ["file", "predicted", "probability"]
    assert "Right on" not in ended.out
    ended = rediffuse("predict", net, flat / "t.csv", "--out", "t.csv")
    assert ended.status == 0, ended.err
    assert rows("t.csv") == [rows()[1], rows()[0]]


def test_photos_beside_a_folder_are_named_too(rediffuse: Callable[..., Ended], net: Path, tmp_path: Path) -> None:
    place = fill(tmp_path / "mixed", {"old": 1})
    for number in range(3):
        photo(0, number).save(place / f"{number}.png")
    ended = rediffuse("predict", net, place)
    assert ended.status == 0, ended.err
    assert [row["file"] for row in rows()] == ["0.png", "1.png", "2.png", "old/0.png"]
    assert all(row["predicted"] for row in rows())


def test_copies_are_told_from_photos(rediffuse: Callable[..., Ended], net: Path, tmp_path: Path) -> None:
    copies = [Example(id=f"cat/{number}", image=photo(0, number), label=0, source="a", copy=number) for number in range(2)]
    place = export_folders(ImageSet.of(copies, classes=["cat"]), tmp_path / "photos" / "plain")
    ended = rediffuse("predict", net, place, "--quiet")
    assert ended.status == 0, ended.err
    assert "holds exported copies of a run, which are generated, not real: what is right of them says nothing of photos" in ended.err
    fill(tmp_path / "photos", {"cat": 2})
    around = folder(tmp_path / "photos")
    assert (around.classes, len(around)) == (("cat",), 2)
    assert [line.reason for line in around.rejected] == ["exported copies of a run, written by rediffuse; not photos of this set"]
    refused(rediffuse("evaluate", net, place), "generated, not real")


def test_one_of_a_thing_is_no_plural(rediffuse: Callable[..., Ended], net: Path, tmp_path: Path) -> None:
    ended = rediffuse("predict", net, fill(tmp_path / "one", {"cat": 1, "a fish": 1}))
    assert "1 photo is labelled 'a fish', which the classifier does not know; it is not judged." in ended.err
    assert "of 1 photo (mean" in ended.out
    assert "The predictions of 2 photos are in" in ended.out


def test_labels_that_the_classifier_does_not_know(rediffuse: Callable[..., Ended], net: Path, tmp_path: Path) -> None:
    data = fill(tmp_path / "mixed", {"cat": 2, "a fish": 3})
    ended = rediffuse("predict", net, data)
    assert "3 photos are labelled 'a fish', which the classifier does not know; they are not judged" in ended.err
    right = sum(row["predicted"] == "cat" for row in rows() if row["label"] == "cat")
    assert f"Right on {right / 2:.1%} of 2 photos" in ended.out
    assert len(rows()) == 5


def test_classes_of_one_name_are_judged_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Example(id=str(row), image=photo(0, 0), label=label) for row, label in enumerate((0, 0, 1, 1))]
    images = ImageSet.of(rows, classes=("crane", "fish"))
    decisions = torch.tensor([[2], [0], [1], [2]])
    found = Predictions(members=("raw",), probabilities=torch.eye(3)[decisions[:, 0]], decisions=decisions, asked=torch.ones(4).long())
    tell(found, images, ("crane", "fish", "crane"), quiet=False)
    assert "Right on 75.0% of 4 photos (mean over classes 75.0%)" in capsys.readouterr().out


def test_labels_mean_classes_as_in_every_yardstick(capsys: pytest.CaptureFixture[str]) -> None:
    """By id, spelling and synonym; ids tell classes of one name apart."""
    names = {0: "tench, Tinca tinca", 1: "goldfish", 134: "crane", 207: "golden retriever", 340: "zebra", 517: "crane", 954: "banana"}
    classes = tuple(({980: "volcano"} | names).get(place, f"thing {place}") for place in range(1000))
    images = ImageSet.of(
        [Example(id=str(row), image=photo(0, 0), label=row) for row in range(4)],
        classes=("n02012849", "n03126707", "tinca_tinca", "golden-retriever"),
    )
    decisions = torch.tensor([[517], [517], [0], [1]])
    found = Predictions(members=("raw",), probabilities=torch.eye(1000)[decisions[:, 0]], decisions=decisions, asked=torch.ones(4).long())
    tell(found, images, classes, quiet=False)
    said = capsys.readouterr()
    assert "Right on 50.0% of 4 photos" in said.out
    assert "does not know" not in said.err


def test_broken_photos_are_listed_and_left_out(rediffuse: Callable[..., Ended], net: Path, photos: Path) -> None:
    for number in range(12):
        (photos / "cat" / f"broken{number:02d}.png").write_bytes(b"" if number % 2 else b"no picture")
    ended = rediffuse("predict", net, photos)
    assert ended.status == 0, ended.err
    assert ended.err.count("Left out: cat/broken") == 10
    assert "... and 2 more; the table names them." in ended.err
    found = rows()
    assert len(found) == 24
    assert [row["predicted"] for row in found[12:]] == [""] * 12
    assert found[13]["problem"] == "empty file (0 bytes)"
    assert {row["problem"] for row in found[:12]} == {""}


def test_names_are_data(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    """Commas, quotes, markup and what a spreadsheet takes for a formula; parquet keeps them as they are."""
    classes = ("=1+1", '-cat, "the" dog', "[bold]@x")
    data = fill(tmp_path / "odd", dict.fromkeys(classes, 2))
    (data / "=1+1" / "0.png").rename(data / "=1+1" / "a,b'[red].png")
    net = open_backbone("scratch", classes, seed=0, size=16).save(tmp_path / "net")
    ended = rediffuse("predict", net, data, "--per-class")
    assert ended.status == 0, ended.err
    found = rows()
    assert {row["file"] for row in found if row["label"] == "'=1+1"} == {"'=1+1/1.png", "'=1+1/a,b'[red].png"}
    assert {row["predicted"] for row in found} <= {"'=1+1", '\'-cat, "the" dog', "[bold]@x"}
    assert set(found[0]) == {"file", "predicted", "probability", "label", *(f"p({name})" for name in classes)}
    assert rediffuse("predict", net, data, "--out", "t.parquet").status == 0
    table = pq.read_table("t.parquet").to_pydict()
    assert table["file"] == list(folder(data).ids)
    assert set(table["label"]) == set(classes)
    assert table["probability"] == pytest.approx([float(row["probability"]) for row in found])


@pytest.mark.parametrize("place", [".", "cat"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_no_table_goes_among_the_photos(
    rediffuse: Callable[..., Ended], net: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, place: str, ending: str
) -> None:
    monkeypatch.chdir(photos)
    refused(rediffuse("predict", net, ".", "--out", f"{place}/t.{ending}"), f"t.{ending} would lie among the photos", f"new/t.{ending}")
    assert rediffuse("predict", net, ".", "--out", f"{place}/new/t.{ending}").status == 0


class TestStopped:
    """Blocks of four photos, stopped in the second."""

    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(predicting, "BLOCK", 4)

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Photos of each block that was asked about; the second such call is interrupted."""
        calls: list[int] = []
        real = Ensemble.predict

        def predict(self: Ensemble, images: Tensor, *rest: Any) -> Any:
            calls.append(len(images))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(self, images, *rest)

        monkeypatch.setattr(Ensemble, "predict", predict)
        return calls

    def test_the_same_command_continues(
        self, rediffuse: Callable[..., Ended], net: Path, denoiser: Path, photos: Path, asked: list[int]
    ) -> None:
        command = ("predict", net, photos, "--ensemble", "diffaug", "--denoiser", denoiser, "--step", 200, "--dtype", "float32")
        ended = rediffuse(*command)
        assert ended.status == 130
        assert "The same command continues" in ended.err
        assert not Path("predictions.csv").exists()
        refused(rediffuse(*command, "--seed", 4), "predictions.csv.partial", "seed 0 there, 4 here")
        assert rediffuse(*command).status == 0
        assert asked == [4, 4, 4, 4]
        assert [child.name for child in Path.cwd().iterdir()] == ["predictions.csv"]
        assert rediffuse(*command, "--out", "whole.csv").status == 0
        assert [row["predicted"] for row in rows("whole.csv")] == [row["predicted"] for row in rows()]
        assert [float(row["probability"]) for row in rows("whole.csv")] == pytest.approx([float(row["probability"]) for row in rows()])

    def test_what_is_kept_is_never_taken_for_something_else(
        self, rediffuse: Callable[..., Ended], net: Path, photos: Path, asked: list[int]
    ) -> None:
        assert rediffuse("predict", net, photos).status == 130
        (photos / "cat" / "0.png").unlink()
        refused(rediffuse("predict", net, photos), "belongs to another call (images ")
        Path("other.csv.partial").mkdir()
        Path("other.csv.partial/diary.txt").write_text("mine")
        refused(rediffuse("predict", net, photos, "--out", "other.csv"), "holds something else")
        assert Path("other.csv.partial/diary.txt").read_text() == "mine"
        fill(photos, {"cat": 1})
        next(Path("predictions.csv.partial").glob("*.kept")).write_bytes(b"broken")
        refused(rediffuse("predict", net, photos), "000000000.kept cannot be read")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--denoiser", "cifar10-32"), "no --ensemble was asked for"),
        (("--ensemble", "diffaug", "--denoiser", "nowhere/at/all"), "nowhere/at/all"),
        (("--step", 25), "--step belongs to --ensemble diffaug, got --ensemble none"),
        (("--ensemble", "dda", "--denoiser", "nowhere", "--t-max", 0), "--t-max belongs to --ensemble diffaug, got --ensemble dda"),
        (("--dda-guidance", 0), "--dda-guidance belongs to --ensemble dda"),
        (("--dda-factor", 2), "--dda-factor belongs to --ensemble dda"),
        (("--early-exit",), "--early-exit belongs to --ensemble diffaug"),
        (("--out", "predictions.txt"), "predictions.txt"),
        (("--batch", 0), "--batch must be at least 1, got 0"),
        (("--split", "val"), "no split 'val'"),
        (("--size", 0), "--size must be at least 1, got 0"),
    ],
)
def test_bad_options(rediffuse: Callable[..., Ended], net: Path, photos: Path, options: tuple[object, ...], said: str) -> None:
    refused(rediffuse("predict", net, photos, *options), said)
    assert list(Path.cwd().iterdir()) == []


def test_bad_views(rediffuse: Callable[..., Ended], net: Path, denoiser: Path, photos: Path, tmp_path: Path) -> None:
    views = ("--ensemble", "diffaug", "--denoiser", denoiser)
    refused(rediffuse("predict", net, photos, *views, "--step", 0), "step must be at least 1, got 0")
    refused(rediffuse("predict", net, photos, *views, "--dda-steps", 4), "--dda-steps belongs to --ensemble dda")
    refused(rediffuse("predict", net, photos, *views, "--early-exit", "--reduce", "logits"), "no bound")
    refused(rediffuse("predict", net, photos, *views, "--size", 15), "multiple of 2", "14, 16")
    latent = tiny_stable(tmp_path / "latent")
    refused(rediffuse("predict", net, photos, "--ensemble", "dda", "--denoiser", latent), "pixel space", "cifar10-32")
    refused(rediffuse("predict", latent, photos), "config.json")
    Path("predictions.csv").write_text("mine")
    refused(rediffuse("predict", net, photos), "exists already")
    assert Path("predictions.csv").read_text() == "mine"
