"""The choice of how copies are made: differences are paired, and the default is weighed against the published solver."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.recipes.test_few_shot import RECIPE, write_shard
from tests.reports.made_up import comparison
from tests.tiny import tiny_stable
from tests.training.toys import striped

from rediffuse.concepts.recipes import RECIPES
from rediffuse.errors import DataError
from rediffuse.evaluation.few_shot.settings import DA_FUSION, REAL_GUIDANCE, Cell
from rediffuse.evaluation.statistics import Interval, paired_t_interval
from rediffuse.recipes import choose_making
from rediffuse.recipes.choose_making import CANDIDATES, DEFAULT, PUBLISHED, SETS, Units, headline, notes_of, table, units_of


def units(*values: float, apart: float = 0.0) -> Units:
    """Seeds 100, 101, ...; the arms lie `apart` from each other."""
    return {
        arm: {100 + place: value + sign * apart for place, value in enumerate(values)}
        for arm, sign in ((REAL_GUIDANCE, 1), (DA_FUSION, -1))
    }


def test_differences_are_paired_with_the_default() -> None:
    found = {DEFAULT: units(0.5, 0.6, 0.2, 0.3), "gentle": units(0.52, 0.61, 0.23, 0.34)}
    rows = table(found)
    assert [(row["candidate"], row["arm"]) for row in rows] == [(name, arm) for name in found for arm in (REAL_GUIDANCE, DA_FUSION)]
    assert rows[0]["accuracy"] == pytest.approx(0.4)
    expected = paired_t_interval([0.52, 0.61, 0.23, 0.34], [0.5, 0.6, 0.2, 0.3])
    assert (rows[2]["minus_default"], rows[2]["low"], rows[2]["high"]) == pytest.approx((expected.value, expected.low, expected.high))


def test_seeds_are_what_an_interval_counts() -> None:
    # Arms that only lie apart add no runs: the interval over both is that over one.
    found = {DEFAULT: units(0.5, 0.6, 0.2, 0.3, apart=0.05), "gentle": units(0.52, 0.61, 0.23, 0.34, apart=0.05)}
    gain = headline(found)["best_gain"]
    assert isinstance(gain, Interval)
    expected = paired_t_interval([0.52, 0.61, 0.23, 0.34], [0.5, 0.6, 0.2, 0.3])
    assert (gain.value, gain.low, gain.high, gain.runs) == pytest.approx((expected.value, expected.low, expected.high, 4))


def test_sets_shots_and_levels_are_averaged_within_a_seed() -> None:
    def share(cell: Cell) -> float:
        return 0.4 + 0.1 * (cell.shots == 2) + 0.02 * cell.seed + 0.2 * (cell.level == "scratch") * (cell.arm == DA_FUSION)

    sets = {"a": comparison(share), "b": comparison(lambda cell: share(cell) - 0.2)}
    found = units_of(sets)
    assert found[REAL_GUIDANCE] == pytest.approx({seed: 0.35 + 0.02 * seed for seed in range(4)})
    assert found[DA_FUSION] == pytest.approx({seed: 0.45 + 0.02 * seed for seed in range(4)})
    with pytest.raises(DataError, match="cells of b are missing"):
        units_of({**sets, "b": comparison(lambda cell: None if cell.seed == 3 else 0.5)})


def test_what_is_chosen_is_called_optimistic() -> None:
    found = {DEFAULT: units(0.5, 0.6, 0.2, 0.3), "gentle": units(0.52, 0.61, 0.23, 0.34)}
    notes = notes_of(found, headline(found))
    assert notes[0] == "Best of default, gentle: gentle."
    assert "Chosen among 2" in notes[1]
    assert "optimistic" in notes[1]
    assert len(notes) == 2
    assert notes_of({DEFAULT: units(0.5, 0.6)}, {}) == ["Best of default: default.", "2 seeds: too few for an interval to say much."]


@pytest.mark.parametrize(("gap", "word"), [(0.001, "is shown"), (0.02, "is not shown")])
def test_the_default_solver_is_weighed(gap: float, word: str) -> None:
    found = {DEFAULT: units(0.5, 0.6, 0.2, 0.3), PUBLISHED: units(0.5 - gap, 0.6 - gap, 0.2, 0.3)}
    figures = headline(found)
    assert figures["best_gain"] == Interval(value=0.0)
    assert word in notes_of(found, figures)[-1]


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
    result = json.loads((tmp_path / "reduced_ablation_making.json").read_text())
    assert result["notes"][0].startswith("Not the recipe's run: sets toy (the recipe's: eurosat flowers17 tiny_imagenet_novel)")
    assert len(result["rows"]) == 4
    assert set(result["headline"]) == {"best_gain"}
    assert choose_making.main([*told, "--candidates", "strongest"]) == 2
    assert "no candidate 'strongest'" in capsys.readouterr().err
