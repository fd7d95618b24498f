"""A whole comparison on a throw-away model: every cell, resumed after kills, refused where it must be."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.tiny import tiny_stable
from tests.training import toys

from rediffuse.concepts.concepts import Concepts
from rediffuse.concepts.recipes import RECIPES, InversionRecipe
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.errors import ConfigError, DataError, ModelError, PlanError
from rediffuse.evaluation.few_shot import compare as compare_module
from rediffuse.evaluation.few_shot.cells import CellStore
from rediffuse.evaluation.few_shot.compare import compare
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.settings import Cell, Making

RECIPE = InversionRecipe(steps=2, batch_per_class=1, learning_rate=1e-2, start="the")
MAKING = Making(recipe=RECIPE, steps=4, guidance_scale=2.0)
ARMS = ("pixels", "standard", "real-guidance", "da-fusion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(folder: Path) -> Denoiser:
    path = tiny_stable(folder / "tiny")
    (path / "rediffuse.json").write_text(json.dumps({"classification_accuracy_score": 0.31, "notes": ["Trained for two minutes."]}))
    return load(path, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def features(folder: Path) -> Path:
    return toys.resnet_folder(folder / "features", size=16)


def sets() -> tuple[ImageSet, ImageSet]:
    """Eight classes, three photos of each to take shots from, five to judge by."""
    return toys.striped(3, classes=8), toys.striped(5, classes=8, seed=7, start=100)


def options(features: Path, out: Path) -> dict[str, Any]:
    return {
        "out": out,
        "shots": (1, 2),
        "seeds": 2,
        "arms": ARMS,
        "levels": ("scratch", f"forty={features}"),
        "copies": 4,
        "making": MAKING,
        "steps": 3,
        "size": 16,
        "command": "rediffuse compare stripes",
        "progress": False,
    }


@pytest.fixture(scope="module")
def whole(model: Denoiser, features: Path, folder: Path) -> Comparison:
    """An undisturbed comparison."""
    return compare(*sets(), model, **options(features, folder / "whole"))


def test_every_cell_is_there(whole: Comparison, folder: Path) -> None:
    assert whole.missing() == []
    assert len(whole.results) == 2 * 2 * (1 + 3 * 2)  # shots, seeds, pixels and three arms at two levels
    assert all(len(result.predictions) == 40 for result in whole.results)
    made = {(result.cell.arm, result.cell.shots): (result.real, result.synthetic) for result in whole.results}
    assert made["standard", 2] == (16, 0)
    assert made["pixels", 1] == (8, 0)
    assert made["real-guidance", 1] == (8, 32)
    assert made["da-fusion", 2] == (16, 64)
    # Real Guidance is made once a seed, DA-Fusion for each number of shots.
    assert whole.images == 2 * (16 * 4) + 2 * (8 + 16) * 4
    runs = sorted(str(path.parent.relative_to(folder / "whole")) for path in (folder / "whole").rglob("run.json"))
    assert runs == [
        "generated/da-fusion/seed-0/shots-1",
        "generated/da-fusion/seed-0/shots-2",
        "generated/da-fusion/seed-1/shots-1",
        "generated/da-fusion/seed-1/shots-2",
        "generated/real-guidance/seed-0/shots-2",
        "generated/real-guidance/seed-1/shots-2",
    ]
    for shots in (1, 2):  # words are learned from the shots of their cells, never from more
        words = Concepts.load(folder / f"whole/words/seed-1/shots-{shots}")
        assert words.settings["photos"]["count"] == 8 * shots
    assert not list((folder / "whole").rglob("*.training")) + list((folder / "whole").rglob("*.state"))


def test_what_is_saved_is_what_was_found(whole: Comparison, folder: Path) -> None:
    import pyarrow.parquet as pq

    loaded = Comparison.load(folder / "whole")
    assert loaded == whole
    assert loaded.samples == whole.samples
    assert pq.read_table(folder / "whole/table.parquet").to_pylist() == whole.rows()
    cells = pq.read_table(folder / "whole/cells.parquet").to_pylist()
    assert {(row["level"], row["arm"], row["shots"], row["seed"]) for row in cells} == {
        (cell.level, cell.arm, cell.shots, cell.seed) for cell in whole.asked()
    }
    assert whole.card["classification_accuracy_score"] == 0.31
    assert whole.weak_generator
    assert "Trained for two minutes." in whole.notes
    assert whole.model["name"] == "tiny"  # the last part of its path: a page names no folder of this machine
    assert str(folder) not in (folder / "whole/comparison.json").read_text()


def test_the_contact_sheet_has_each_strength(whole: Comparison) -> None:
    sources = [sample for sample in whole.samples if sample.arm is None]
    assert len(sources) == 8
    first = [sample for sample in whole.samples if sample.source == sources[0].source]
    assert [(sample.arm, sample.strength) for sample in first] == [
        (None, None),
        ("real-guidance", 0.5),
        ("da-fusion", 0.25),
        ("da-fusion", 0.5),
        ("da-fusion", 0.75),
        ("da-fusion", 1.0),
    ]
    assert all(sample.png.startswith(b"\x89PNG") for sample in whole.samples)


def predictions(found: Comparison) -> dict[Cell, tuple[int, ...]]:
    return {result.cell: result.predictions for result in found.results}


def fewer(features: Path, out: Path) -> dict[str, Any]:
    """Eight of the cells of the whole."""
    return {**options(features, out), "seeds": 1, "arms": ("standard", "da-fusion")}


def test_a_comparison_goes_on_where_it_was_killed(whole: Comparison, features: Path, folder: Path, model: Denoiser, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[4])\n"
        "import torch; torch.set_num_threads(1)\n"
        "from tests.evaluation.few_shot.test_compare import *\n"
        "compare(*sets(), load(Path(sys.argv[1]), device='cpu', dtype='float32'), **fewer(Path(sys.argv[2]), Path(sys.argv[3])))"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", script, str(folder / "tiny"), str(features), str(out), str(root)]
    process = subprocess.Popen(command, cwd=root / "src", stderr=subprocess.PIPE)
    while len(list(out.glob("cells/*/*/*/*.json"))) < 3 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert 3 <= len(list(out.glob("cells/*/*/*/*.json"))) < 8
    again = compare(*sets(), model, **fewer(features, out))
    assert again.missing() == []
    assert len(again.results) == 8
    assert predictions(again).items() <= predictions(whole).items()


def test_nothing_is_done_twice(whole: Comparison, features: Path, folder: Path, model: Denoiser) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("cells/**/*.json")}
    again = compare(*sets(), model, **options(features, folder / "whole"))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert predictions(again) == predictions(whole)


def test_more_may_be_asked_for_later_and_other_settings_are_refused(features: Path, tmp_path: Path, model: Denoiser) -> None:
    out = tmp_path / "grows"
    asked = {**options(features, out), "arms": ("standard",), "shots": (1,), "seeds": 1, "levels": ("scratch",)}
    few = compare(*sets(), None, **asked)
    assert len(few.results) == 1
    grown = compare(*sets(), model, **{**asked, "arms": ("standard", "real-guidance"), "seeds": 2})
    assert len(grown.results) == 4
    assert predictions(few).items() <= predictions(grown).items()
    for change, said in (
        ({"copies": 5}, "copies was 4, now 5"),
        ({"alpha": 0.3}, r"alpha was 0\.5, now 0\.3"),
        ({"steps": 4}, "steps was 3"),
    ):
        with pytest.raises(PlanError, match=said):
            compare(*sets(), model, **{**asked, **change})
    images, test = sets()
    with pytest.raises(PlanError, match="sha256"):
        compare(images, test.subset(range(30)), None, **asked)
    fewer = images.subset(range(0, len(images), 2))
    said = (
        rf"another comparison: its photos were {len(images)} photos of .* now they are {len(fewer)} photos of [^;]*\. Give another folder"
    )
    with pytest.raises(PlanError, match=said):
        compare(fewer, test, None, **{**asked, "steps": 4})
    with pytest.raises(PlanError, match="something else"):
        compare(*sets(), None, **{**asked, "out": features})


def test_a_failed_cell_is_missing_and_tried_again(features: Path, tmp_path: Path) -> None:
    asked = {**options(features, tmp_path / "out"), "arms": ("pixels",), "shots": (1,), "seeds": (0,), "levels": ("scratch",)}
    compare(*sets(), None, **asked)
    asked["arms"] = ("pixels", "standard")
    cell = Cell(level="scratch", arm="standard", shots=1, seed=0)
    broken = CellStore(tmp_path / "out", 40).path(cell).with_suffix(".training")
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no checkpoint")
    found = compare(*sets(), None, **asked)
    assert found.missing() == [cell]
    assert "remove it to begin again" in found.failures[cell]
    assert Comparison.load(tmp_path / "out") == found
    broken.unlink()
    again = compare(*sets(), None, **asked)
    assert again.missing() == []
    assert again.failures == {}


def test_where_every_cell_fails_the_error_is_raised(features: Path, tmp_path: Path) -> None:
    asked = {**options(features, tmp_path / "out"), "arms": ("standard",), "shots": (1,), "seeds": (0,), "levels": ("scratch",)}
    store = CellStore(tmp_path / "out", 40)
    compare(*sets(), None, **asked)
    path = store.path(Cell(level="scratch", arm="standard", shots=1, seed=0))
    path.write_text("damaged")  # counts as none
    path.with_suffix(".training").write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match="remove it to begin again"):
        compare(*sets(), None, **asked)


def test_the_cost_comes_first(features: Path, tmp_path: Path, model: Denoiser, capsys: pytest.CaptureFixture[str]) -> None:
    asked = options(features, tmp_path / "priced")
    with pytest.raises(ConfigError, match="--hours allows"):
        compare(*sets(), model, **{**asked, "hours": 1e-6})
    assert not (tmp_path / "priced").exists()
    found = compare(*sets(), model, **{**asked, "dry_run": True})
    said = capsys.readouterr().err
    assert "28 classifiers to train" in said
    assert "4 learnings of words, 64 samples" in said  # 2 seeds, 2 shot numbers; 8 classes, 2 steps of 1
    # Strengths .25 .5 .75 1 of 4 steps take 1 2 3 4 calls; Real Guidance 2.
    assert "320 images in 736 model calls" in said
    assert not (tmp_path / "priced").exists()
    assert len(found.missing()) == 28


def test_no_cell_begins_that_would_end_too_late(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = {**options(features, out), "arms": ("pixels", "standard"), "shots": (1,), "seeds": 3, "levels": ("scratch",), "progress": True}
    done = lambda: len(list(out.glob("cells/*/*/*/*.json")))  # noqa: E731
    monkeypatch.setattr(compare_module, "time", SimpleNamespace(monotonic=lambda: 3600.0 * done()))  # each cell takes an hour
    found = compare(*sets(), None, **asked, hours=2.5)
    assert len(found.results) == done() == 3
    assert len(found.missing()) == 3
    assert found.failures == {}
    said = capsys.readouterr().err
    assert "4 of 6  seed 1, 1 shot, standard, scratch: not begun, it would end after the 2.5 h of --hours" in said
    assert "left: 3 cells; the same command continues" in said
    assert Comparison.load(out) == found
    again = compare(*sets(), None, **asked, hours=2.5)
    assert again.missing() == []
    assert predictions(found).items() <= predictions(again).items()


def test_a_call_comes_one_cell_further_at_least(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    asked = {**options(features, out), "arms": ("pixels",), "shots": (1, 2), "seeds": 1}
    ticks = itertools.count(step=10_000)
    monkeypatch.setattr(compare_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert len(compare(*sets(), None, **asked, hours=1).results) == 1
    assert len(compare(*sets(), None, **asked, hours=1).results) == 2


def test_the_cost_holds_the_search_for_starts(
    features: Path, tmp_path: Path, model: Denoiser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {**options(features, tmp_path / "priced"), "making": replace(MAKING, recipe=replace(RECIPE, start="auto")), "hours": 1}
    monkeypatch.setattr(model, "known_words", tuple(map(str, range(10))))
    compare(*sets(), model, **{**asked, "dry_run": True})
    # Each of 8 classes in 4 learnings: 10 words looked at once, 8 three times more, 3 twelve times more.
    assert "64 samples and 2,240 looks" in capsys.readouterr().err
    monkeypatch.setattr(model, "known_words", tuple(map(str, range(10**5))))
    with pytest.raises(ConfigError, match=r"--hours allows 0\.01 h"):
        compare(*sets(), model, **{**asked, "hours": 0.01})


def test_alpha_is_chosen_by_cross_validation(features: Path, tmp_path: Path, model: Denoiser) -> None:
    asked = {
        **options(features, tmp_path / "auto"),
        "alpha": "auto",
        "levels": (f"forty={features}",),
        "arms": ("standard", "real-guidance"),
    }
    found = compare(*sets(), model, **{**asked, "seeds": 1})
    alphas = {(result.cell.arm, result.cell.shots): result.alpha for result in found.results}
    assert alphas["standard", 2] == 0.0
    assert alphas["real-guidance", 1] == 0.5
    assert alphas["real-guidance", 2] in (0.0, 0.25, 0.5, 0.75)


def test_photos_on_both_sides_are_never_shots(features: Path, tmp_path: Path) -> None:
    images, test = sets()
    both = ImageSet.of([*images, *(replace(example, id="t/" + example.id) for example in test[:5])], classes=images.classes, name="both")
    asked = {**options(features, tmp_path / "both"), "arms": ("pixels",), "shots": (3,), "seeds": 1}
    found = compare(both, test, None, **asked)
    assert any(note.startswith("5 of 29 photos are also test photos") for note in found.notes)
    assert found.pool_images == 24
    with pytest.raises(DataError, match="all 40 photos"):
        compare(test, test, None, **{**asked, "out": tmp_path / "same"})


def test_without_test_photos_a_share_is_held_out(features: Path, tmp_path: Path) -> None:
    asked = {**options(features, tmp_path / "held"), "arms": ("pixels",), "shots": (2,), "seeds": 1}
    found = compare(toys.striped(4, classes=8), None, None, **asked)
    assert len(found.labels) == 8
    assert found.notes[0].startswith("No test photos were given: 8 of 32")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"shots": (1, 4)}, DataError, "has 3 images, 4 were asked for"),
        ({"shots": ()}, ConfigError, "shots must hold at least one"),
        ({"seeds": 0}, ConfigError, "seeds must be at least 1, got 0"),
        ({"arms": ("standard", "magic")}, ConfigError, "no arm 'magic'"),
        ({"arms": ("da-fusion",)}, ConfigError, "need a text-to-image model"),
        ({"levels": ("scratch", "scratch")}, ConfigError, "none twice"),
        ({"alpha": 1.5}, ConfigError, r"got 1\.5"),
        ({"making": replace(MAKING, copies=3), "copies": 0}, ConfigError, "copies must be at least 1"),
    ],
)
def test_settings_that_cannot_be_compared(
    change: dict[str, Any], error: type[Exception], said: str, features: Path, tmp_path: Path
) -> None:
    asked = {**options(features, tmp_path / "out"), "arms": ("standard",), **change}
    with pytest.raises(error, match=said):
        compare(*sets(), None, **asked)
    assert not (tmp_path / "out").exists()


def test_one_class_is_no_comparison(features: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two classes, got 1"):
        compare(toys.striped(3, classes=1), None, None, **{**options(features, tmp_path / "one"), "arms": ("standard",)})


def test_a_named_recipe_is_known_by_its_settings(features: Path, tmp_path: Path, model: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {**options(features, tmp_path / "out"), "arms": ("standard",), "shots": (1,), "seeds": 1, "levels": ("scratch",)}
    asked["making"] = replace(MAKING, recipe="fast")
    compare(*sets(), model, **asked)
    monkeypatch.setitem(RECIPES, "fast", replace(RECIPES["fast"], steps=RECIPES["fast"].steps + 1))
    with pytest.raises(PlanError, match=r"making\.recipe\.steps was"):
        compare(*sets(), model, **asked)
