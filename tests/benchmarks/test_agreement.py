"""The table of agreement: every figure is near what it is compared with, a wrong one is seen, and a missing library is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.agreement import ABSENT, Side, difference

from benchmarks import agreement
from rediffuse.errors import DataError
from rediffuse.evaluation.ood import metrics
from rediffuse.evaluation.results import read_result


def test_every_figure_is_near_its_other_side(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert agreement.main(["--out", str(tmp_path)]) == 0
    found = read_result(tmp_path / "agreement.json")
    rows = {(row["figure"], row["library"]): row for row in found.rows}
    assert {"AUROC", "FPR95", "Clopper-Pearson, lower", "FID", "KID", "density", "SCALE"} <= {figure for figure, _ in rows}
    for (figure, library), row in rows.items():
        if row["version"] != ABSENT:
            bound = 1e-9 if library in ("scikit-learn", "scipy", "formulas, in numpy") else 1e-4 * max(1.0, row["values_up_to"])
            assert row["largest_difference"] <= bound, figure
    absent = [row["library"] for row in found.rows if row["version"] == ABSENT]
    assert all(library in " ".join(found.notes) for library in absent)


def test_a_wrong_figure_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = metrics.auroc
    monkeypatch.setattr(metrics, "auroc", lambda known, unknown: right(known, unknown) + 0.01)
    (side,) = (each for each in agreement.sides(agreement.FIXTURE) if each.package == "scikit-learn")
    rows = {row["figure"]: row["largest_difference"] for row in side.rows()}
    assert rows["AUROC"] == pytest.approx(0.01)
    assert rows["AUPR, known"] < 1e-9


def test_a_missing_library_has_a_row_that_says_so() -> None:
    def never(_: Any) -> agreement.Pairs:
        raise AssertionError

    side = Side(package="nothing", module="no_such_module", what="this and that", inputs="none", compare=never)
    assert side.rows() == [{"figure": "this and that", "library": "nothing", "version": ABSENT, "inputs": "none"}]


def test_differences_are_the_largest_over_all_inputs() -> None:
    found = difference([(1.0, 1.5), (np.array([3.0, -4.0]), np.array([3.0, -4.25]))])
    assert found == {"largest_difference": 0.5, "values_up_to": 4.25}


def test_a_missing_fixture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no fixture at .*none; run this from the root of a checkout"):
        agreement.by_published(tmp_path / "none", None)
