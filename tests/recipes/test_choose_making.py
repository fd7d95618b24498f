"""The choice of how copies are made: differences are paired, and the default is weighed against the published solver."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.recipes.test_few_shot import RECIPE, write_shard
from tests.tiny import tiny_stable
from tests.training.toys import striped

from rediffuse.concepts.recipes import RECIPES
from rediffuse.evaluation.settings import DA_FUSION, REAL_GUIDANCE
from rediffuse.evaluation.statistics import Interval, paired_t_interval
from rediffuse.recipes import choose_making
from rediffuse.recipes.choose_making import CANDIDATES, DEFAULT, PUBLISHED, SETS, Units, headline, notes_of, table


def units(*values: float) -> Units:
    keys = [(name, seed) for name in ("a", "b") for seed in (100, 101)]
    return {arm: dict(zip(keys, values, strict=True)) for arm in (REAL_GUIDANCE, DA_FUSION)}


def test_differences_are_paired_with_the_default() -> None:
    found = {DEFAULT: units(0.5, 0.6, 0.2, 0.3), "gentle": units(0.52, 0.61, 0.23, 0.34)}
    rows = table(found)
    assert [(row["candidate"], row["arm"]) for row in rows] == [(name, arm) for name in found for arm in (REAL_GUIDANCE, DA_FUSION)]
    assert rows[0]["accuracy"] == pytest.approx(0.4)
    expected = paired_t_interval([0.52, 0.61, 0.23, 0.34], [0.5, 0.6, 0.2, 0.3])
    assert (rows[2]["minus_default"], rows[2]["low"], rows[2]["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    figures = headline(found)
    assert set(figures) == {"best_gain"}
    assert isinstance(figures["best_gain"], Interval)
    assert figures["best_gain"].value == pytest.approx(0.025)
    assert notes_of(found, figures) == ["Best of default, gentle: gentle."]


@pytest.mark.parametrize(("gap", "word"), [(0.001, "is shown"), (0.02, "is not shown")])
def test_the_default_solver_is_weighed(gap: float, word: str) -> None:
    found = {DEFAULT: units(0.5, 0.6, 0.2, 0.3), PUBLISHED: units(0.5 - gap, 0.6 - gap, 0.2, 0.3)}
    figures = headline(found)
    assert figures["best_gain"] == Interval(value=0.0)
    assert word in notes_of(found, figures)[1]


def test_known_20_chooses_nothing() -> None:
    assert set(SETS) == {"eurosat", "flowers17", "tiny_imagenet_novel"}
    assert DEFAULT in CANDIDATES


@pytest.mark.slow
def test_a_search_goes_from_photos_to_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(striped(4, classes=2), tmp_path / "stripes", "train")
    write_shard(striped(1, classes=2, start=9), tmp_path / "stripes", "test")
    model = tiny_stable(tmp_path / "model", prediction_type="v_prediction")
    monkeypatch.setattr(choose_making, "SETS", {"toy": RECIPE})
    monkeypatch.setitem(RECIPES, "fast", replace(RECIPES["fast"], steps=2, start="the"))
    told = ["--data", str(tmp_path), "--sets", "toy", "--model", str(model), "--levels", "scratch", "--work", str(tmp_path / "work")]
    told += ["--shots", "1", "--seeds", "1", "--copies", "1", "--steps", "2", "--out", str(tmp_path)]
    assert choose_making.main([*told, "--candidates", "guidance-2"]) == 0
    result = json.loads((tmp_path / "ablation_making.json").read_text())
    assert len(result["rows"]) == 4
    assert set(result["headline"]) == {"best_gain"}
    assert choose_making.main([*told, "--candidates", "strongest"]) == 2
    assert "no candidate 'strongest'" in capsys.readouterr().err
