"""`compare` and `demo` on a tiny model: the cost first, the page last, resumed, refused where it must be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Ended, fill
from tests.training.toys import resnet_folder

from rediffuse.cli import demo as demo_verb
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.results import read_result

SMALL = {
    "--shots": ("1", "2"),
    "--seeds": ("2",),
    "--copies": ("2",),
    "--steps": ("2",),
    "--samples": ("4",),
    "--train-steps": ("3",),
    "--classifier": ("scratch",),
}


def small(*given: object) -> list[object]:
    """What is given, and a small value of every option that is not."""
    return [*(word for name, values in SMALL.items() if name not in given for word in (name, *values)), *given]


@pytest.fixture
def compare(rediffuse: Callable[..., Ended], tmp_path: Path, model: Path) -> Callable[..., Ended]:
    """compare(*options): two classes of four photos, on the tiny model."""
    photos = fill(tmp_path / "few", {"cat": 4, "dog": 4})
    return lambda *options: rediffuse("compare", photos, "--model", model, *small(*options))


def test_cost_table_page_and_again(compare: Callable[..., Ended]) -> None:
    first = compare()
    assert first.status == 0, first.err
    assert first.err.index("classifiers to train") < first.err.index("1 of 12")
    for words in ("random weights", "1 shot", "2 shots", "mean", "over standard", "Real Guidance", "DA-Fusion", "comparison/report.html"):
        assert words in first.out
    assert "2 of 8" in first.out.replace(",", "")  # held out, in the notes
    assert {"report.html", "comparison.json", "table.parquet", "cells.parquet"} <= {path.name for path in Path("comparison").iterdir()}
    found = Comparison.load("comparison")
    assert found.missing() == []
    assert "--train-steps 3" in found.provenance.command
    again = compare()
    assert again.status == 0
    assert again.out == first.out
    assert "of 12 " not in again.err


def test_asked_for_fewer_it_draws_all_that_is_there(compare: Callable[..., Ended]) -> None:
    full = compare()
    assert full.status == 0, full.err
    before, table = Comparison.load("comparison"), full.out.partition("The page")[0].partition("2 of 8")[0]
    fewer = compare("--seeds", 1, "--shots", 1)
    assert fewer.status == 0, fewer.err
    assert fewer.out.startswith(table.rstrip()[: table.rindex("over standard")])
    said = "The folder held more of this comparison, which is drawn too: seeds 0, 1; shots 1, 2."
    assert said in fewer.out
    found = Comparison.load("comparison")
    assert found.rows() == before.rows()
    assert (found.images, found.seconds, found.stages) == (before.images, before.seconds, before.stages)
    assert found.settings == before.settings
    assert found.samples == before.samples
    assert said in Path("comparison/report.html").read_text(encoding="utf-8")
    small = compare("--seeds", 1, "--shots", 1, "--out", "small")
    assert Comparison.load("small").images < before.images
    assert "drawn too" not in small.out


def test_a_comparison_inside_the_photos_goes_on_and_is_no_class(
    compare: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "few")
    options = ("--arms", "real-guidance", "standard", "--shots", 1, "--seeds", 1)
    first = compare(*options)
    assert first.status == 0, first.err
    assert list(Path("comparison").rglob("*.png"))  # pictures that would be a class
    again = compare(*options)
    assert again.status == 0, again.err
    assert again.out == first.out
    assert "comparison/ (a comparison, written by rediffuse" in again.err
    ended = compare(*options, "--out", ".")
    assert ended.status == 2
    assert "holds the photos" in ended.err


def test_digits_are_held_against_raw_pixels_first(rediffuse: Callable[..., Ended], model: Path) -> None:
    ended = rediffuse("compare", "digits", "--model", model, *small("--seeds", 1, "--dry-run"))
    assert ended.status == 0, ended.err
    settings = rediffuse("compare", "digits", "--model", model, *small("--seeds", 1, "--dry-run", "--arms", "standard")).err
    assert "8 classifiers to train" in ended.err
    assert "will count when da-fusion joins" not in ended.err
    assert "--samples will count when da-fusion joins --arms" in settings
    assert "2 classifiers to train" in settings


def test_a_dry_run_trains_nothing(compare: Callable[..., Ended]) -> None:
    ended = compare("--dry-run")
    assert ended.status == 0
    assert "12 classifiers to train" in ended.err
    assert not Path("comparison").exists()


def test_shots_that_the_photos_left_over_do_not_allow(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    photos = fill(tmp_path / "few", {"cat": 8, "dog": 8})
    few = ("compare", photos, "--arms", "standard", "--classifier", "scratch", "--train-steps", 3, "--seeds", 1, "--dry-run")
    usual = rediffuse(*few)
    assert usual.status == 0, usual.err
    assert "shots 1 2 4: the smallest class has 6 photos to take from" in usual.err
    assert "3 classifiers to train" in usual.err
    asked = rediffuse(*few, "--shots", 1, 2, 4, 8)
    assert asked.status == 2
    said = "class 'cat' has 8 photos, 2 held out to judge by, 6 left, 8 were asked for: --shots 1 2 4, or --test FOLDER"
    assert said in " ".join(asked.err.split())
    assert "--shots 1 2 4, or add photos" in " ".join(rediffuse(*few, "--shots", 1, 2, 4, 9).err.split())


def test_more_hours_than_allowed(compare: Callable[..., Ended]) -> None:
    ended = compare("--hours", 0.0000001)
    assert ended.status == 2
    assert "--hours allows 1e-07 h" in ended.err
    assert not Path("comparison").exists()


def test_seeds_arms_levels_and_out(compare: Callable[..., Ended], tmp_path: Path) -> None:
    features = resnet_folder(tmp_path / "features", size=16)
    levels = ("scratch", f"forty={features}")
    ended = compare("--arms", "pixels", "standard", "--seed", 7, "--classifier", *levels, "--out", tmp_path / "o", "--alpha", "auto")
    assert ended.status == 0, ended.err
    found = Comparison.load(tmp_path / "o")
    assert (found.seeds, found.levels, found.arms) == ((7, 8), ("scratch", "forty"), ("pixels", "standard"))
    assert found.settings["alpha"] == "auto"
    assert "Raw pixels" in ended.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--alpha", "half"), "--alpha must be a number in [0, 1], or auto, got 'half'"),
        (("--alpha", "2"), "must be in [0, 1]"),
        (("--arms", "magic"), '"magic"'),
        (("--shots", "9"), "9 were asked for"),
        (("--shots", "0"), "shots must be at least 1, got 0"),
        (("--seeds", "0"), "seeds must be at least 1, got 0"),
        (("--copies", "0"), "copies must be at least 1, got 0"),
        (("--strengths", "2"), "got 2"),
        (("--strengths", ".3", "--arms", "standard", "real-guidance"), "--strengths are da-fusion's"),
        (("--hours", "nan"), "hours must be a number of at least 0, got nan"),
        (("--hours", "-1"), "hours must be a number of at least 0, got -1"),
        (("--recipe", "slow"), "no recipe 'slow'"),
        (("--classifier", "nowhere/a/b"), "nowhere/a/b"),
        (("--test", "nowhere"), "nowhere"),
        (("--view", "0"), "--view must be at least 1, got 0"),
    ],
)
def test_bad_options(compare: Callable[..., Ended], options: tuple[str, ...], said: str) -> None:
    ended = compare(*options)
    assert ended.status == 2, ended.out
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not Path("comparison").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--alpha", "2"), "must be in [0, 1]"),
        (("--classifier", "nowhere/a/b"), "nowhere/a/b"),
        (("--classifier", "resnet65"), "no classifier 'resnet65': there is no bundled one and no folder of that name; give scratch, "),
        (("--train-steps", "0"), "--train-steps must be at least 1, got 0"),
    ],
)
def test_bad_options_are_found_before_photos_are_read(rediffuse: Callable[..., Ended], options: tuple[str, ...], said: str) -> None:
    photos = fill(Path("unread"), {"cat": 4, "dog": 4})
    for file in photos.rglob("*.png"):
        file.write_bytes(b"no picture")
    ended = rediffuse("compare", photos, *small(*options))
    assert ended.status == 2
    assert said in ended.err
    assert "picture" not in ended.err


def test_one_class_is_refused(rediffuse: Callable[..., Ended], tmp_path: Path, model: Path) -> None:
    ended = rediffuse("compare", fill(tmp_path / "lone", {"cat": 4}), "--model", model, *small())
    assert ended.status == 2
    assert "at least two classes" in ended.err


def test_the_folder_of_another_comparison(compare: Callable[..., Ended]) -> None:
    assert compare("--arms", "standard").status == 0
    ended = compare("--arms", "standard", "--train-steps", 4)
    assert ended.status == 2
    assert "another comparison" in ended.err
    assert "whole.steps was 3, now 4" in ended.err


def test_large_photos_without_a_model(rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
    photos = fill(tmp_path / "large", {"cat": 4, "dog": 4}, size=(120, 90))
    ended = rediffuse("compare", photos, *small())
    assert ended.status == 2
    assert "All 8 photos are larger than 96 pixels (120x90)" in ended.err
    # Without copies there is no model that could be too small.
    assert rediffuse("compare", photos, *small("--arms", "standard", "--view", 16)).status == 0


class TestDemo:
    """The demo in miniature; with the bundled models it runs from the wheel in tests/test_package.py."""

    @pytest.fixture
    def demo(self, rediffuse: Callable[..., Ended], model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
        tiny = demo_verb.Extent(name="tiny", classes=2, shots=(1,), seeds=1, copies=2, steps=2, samples=4, train_steps=3, view=16)
        monkeypatch.setattr(demo_verb, "NORMAL", tiny)
        return lambda *options: rediffuse("demo", "--model", model, *options)

    def test_it_ends_with_figures_page_and_what_to_type(self, demo: Callable[..., Ended]) -> None:
        ended = demo("--results", "results/demo.json")
        assert ended.status == 0, ended.err
        page = Path("demo/tiny/report.html")
        assert page.is_file()
        for words in ("Raw pixels", "without copies", "with DA-Fusion's copies", "difference", "wall time", "peak memory", str(page)):
            assert words in ended.out
        assert "rediffuse augment photos/ more/" in ended.out
        result = read_result("results/demo.json")
        assert set(result.headline) == {"wall_seconds", "peak_gib", "gain_da_fusion"}
        assert 0.05 < result.headline["peak_gib"].value < 64
        gain = Comparison.load("demo/tiny").gain("scratch", "da-fusion")
        assert gain is not None
        assert (result.headline["gain_da_fusion"].value, result.headline["gain_da_fusion"].low) == (gain.value, gain.low)

    def test_again_it_says_that_most_was_there(self, demo: Callable[..., Ended]) -> None:
        assert demo().status == 0
        again = demo()
        assert "what an earlier demo had left" in again.out
        refused = demo("--results", "r.json")
        assert refused.status == 2
        assert "--out" in refused.err

    @pytest.mark.parametrize(("options", "said"), [(("--quick", "--full"), "--quick and --full"), (("--results", "r.txt"), "r.txt")])
    def test_bad_options(self, demo: Callable[..., Ended], options: tuple[str, ...], said: str) -> None:
        ended = demo(*options)
        assert ended.status == 2
        assert said in ended.err

    def test_its_extents_keep_to_the_budget(self) -> None:
        """600 images of 10 calls and 3,000 samples of learning: minutes also where 70 calls and 25 samples take a second."""
        normal = demo_verb.NORMAL
        images = normal.classes * sum(normal.shots) * normal.copies * normal.seeds
        calls = sum(max(1, int(normal.steps * strength)) for strength in demo_verb.making(normal).strengths) / 4 * 2
        assert images * calls <= 6_000
        assert normal.classes * normal.samples * normal.seeds * len(normal.shots) <= 3_000
        quick = json.loads(json.dumps(demo_verb.QUICK.__dict__))
        assert quick["classes"] * quick["samples"] <= 64
