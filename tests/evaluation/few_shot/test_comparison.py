"""What a comparison says of its cells: means, paired differences, verdicts, and what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats
from tests.reports.made_up import comparison, sample

from rediffuse.errors import DataError, PlanError
from rediffuse.evaluation.few_shot.cells import CellStore
from rediffuse.evaluation.few_shot.comparison import Comparison, level_key
from rediffuse.evaluation.few_shot.settings import Cell
from rediffuse.evaluation.results import read_result, save_result

LUCK = (0.0, 0.1, 0.2, 0.06)
GAIN = {"standard": (0, 0, 0, 0), "real-guidance": (0.02, 0.0, 0.04, 0.02), "da-fusion": (0.06, 0.08, 0.06, 0.1), "pixels": (0, 0, 0, 0)}


def share(cell: Cell) -> float:
    sign = {"scratch": 1, "forty": 0, "resnet-64": -1, "pixels": 0}[cell.level]
    return 0.4 + 0.1 * (cell.shots == 2) + LUCK[cell.seed] + sign * GAIN[cell.arm][cell.seed]


def test_accuracy_is_the_mean_over_seeds_with_students_interval() -> None:
    found = comparison(share).accuracy("scratch", "standard", 2)
    values = [0.5 + luck for luck in LUCK]
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((sum(values) / 4, low, high), abs=1e-9)


def test_shots_are_averaged_within_a_seed_before_the_interval() -> None:
    found = comparison(share).gain("scratch", "da-fusion")
    low, high = stats.t.interval(0.95, 3, loc=0.075, scale=stats.sem(GAIN["da-fusion"]))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.075, low, high), abs=1e-9)
    assert found.runs == 4  # seeds, not seeds times shots


def test_verdicts_and_headline() -> None:
    found = comparison(share, levels=("scratch", "forty", "resnet-64"))
    assert found.verdict("scratch", "da-fusion") == "helps"
    assert found.verdict("forty", "da-fusion") == "no evidence"
    assert found.verdict("resnet-64", "da-fusion") == "hurts"
    headline = found.headline()
    assert set(headline) == {
        f"gain_over_{baseline}_{level}" for baseline in ("standard", "real_guidance") for level in ("scratch", "forty", "resnet64")
    }
    assert headline["gain_over_real_guidance_resnet64"].value == pytest.approx(-0.055)
    assert level_key("microsoft/resnet-50") == "microsoftresnet50"


def test_few_seeds_resample_test_images() -> None:
    found = comparison(share, seeds=1).gain("scratch", "da-fusion")
    assert found is not None
    assert found.basis == "one training run"
    assert found.low is not None
    assert found.low <= found.value == pytest.approx(0.06)
    assert comparison(share, seeds=3).gain("scratch", "da-fusion").basis == "three training runs"  # type: ignore[union-attr]


def test_missing_cells_are_known_and_never_filled() -> None:
    def holes(cell: Cell) -> float | None:
        if cell.level == "scratch" and (cell.arm, cell.shots, cell.seed) == ("da-fusion", 2, 1):
            return None
        return None if cell.level == "resnet-64" and cell.arm == "standard" else share(cell)

    found = comparison(holes)
    assert len(found.missing()) == 1 + 8
    assert found.gain("resnet-64", "da-fusion") is None
    assert found.verdict("resnet-64", "da-fusion") is None
    assert "gain_over_standard_resnet64" not in found.headline()
    partly = found.gain("scratch", "da-fusion")
    assert partly is not None
    assert (partly.runs, partly.basis) == (3, "three training runs")  # seed 1 lacks a number of shots
    assert partly.value == pytest.approx((0.06 + 0.06 + 0.1) / 3)
    rows = {(row["level"], row["arm"], row["shots"]): row for row in found.rows()}
    assert rows["scratch", "da-fusion", 2]["missing_seeds"] == 1
    assert rows["resnet-64", "standard", 1]["accuracy"] is None
    assert rows["resnet-64", "standard", None]["missing_seeds"] == 4


def test_rows_hold_every_pair_of_level_and_arm() -> None:
    found = comparison(share, arms=("pixels", "standard", "da-fusion"))
    rows = found.rows()
    assert [(row["level"], row["arm"]) for row in rows[::3]] == [
        ("pixels", "pixels"),
        ("scratch", "standard"),
        ("scratch", "da-fusion"),
        ("resnet-64", "standard"),
        ("resnet-64", "da-fusion"),
    ]
    assert [row["shots"] for row in rows[:3]] == [1, 2, None]
    assert rows[0]["gain_over_standard"] is None
    assert rows[6]["gain_over_standard"] == pytest.approx(0.075)
    assert rows[6]["gain_over_real_guidance"] is None


def test_it_saves_itself(tmp_path: Path) -> None:
    found = replace(
        comparison(share),
        failures={Cell(level="scratch", arm="standard", shots=1, seed=9): "no memory"},
        samples=(sample("cat", None, None), sample("cat", "da-fusion", 0.25)),
    )
    found.save(tmp_path)
    again = Comparison.load(tmp_path)
    assert again == replace(found, settings=json.loads(json.dumps(found.settings)))
    assert again.samples == found.samples
    assert again.headline() == found.headline()
    stored = json.loads((tmp_path / "comparison.json").read_text())
    assert stored["headline"]["gain_over_standard_scratch"]["value"] == pytest.approx(0.075)
    assert max(map(len, (tmp_path / "comparison.json").read_text().splitlines())) > 300  # predictions are one line each


def test_it_becomes_a_results_file(tmp_path: Path) -> None:
    found = comparison(share)
    result = read_result(save_result(found.result("compare_pets"), tmp_path))
    assert result.command == "rediffuse compare 'my pets'"
    assert result.commit == "c0ffee"
    assert result.rows == found.rows()
    assert result.seconds == pytest.approx(65.0 + 10 * len(found.results))
    assert result.headline["gain_over_standard_scratch"].value == pytest.approx(0.075)
    named = replace(found, model={"name": "brush", "weights_hash": "0123456789abcdef"}, notes=("few",))
    assert list(named.result("compare_pets").notes)[-2:] == ["few", "Copies by brush, weights 0123456789ab."]


def test_what_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it has no comparison\.json"):
        Comparison.load(tmp_path)
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read as a comparison"):
        Comparison.load(tmp_path)


def test_a_comparison_killed_as_it_took_its_folder_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / ".settings.json.4711.partial").write_text("{")
    store = CellStore(tmp_path, 1)
    assert store.check({"shots": [1]}) is None
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(PlanError, match="holds something else"):
        store.check({"shots": [1]})
