"""Memory of the figures of fidelity: stages in turn, and work that is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fidelity
from rediffuse.evaluation.results import read_result


def test_stages_are_measured_in_turn(tmp_path: Path) -> None:
    assert fidelity.main(["--features", "900", "--width", "4", "--out", str(tmp_path)]) == 0
    found = read_result(tmp_path / "bench_fidelity.json")
    assert [row["stage"] for row in found.rows] == ["begin", "moments", "neighbours", "features", "moments", "neighbours"]
    assert all(row["to_the_end"] and row["features"] == 900 for row in found.rows)
    peaks = [row["peak_gb"] for row in found.rows]
    assert peaks == sorted(peaks)
    assert found.headline["peak_gb"].value == peaks[-1] > found.headline["features_gb"].value == 4 * 900 * 4 / 1e9


def test_work_is_stopped_and_the_clock_with_it() -> None:
    with fidelity.at_most(0.05) as stopped:
        while True:
            pass
    assert stopped
    with fidelity.at_most(1e6) as stopped:
        pass
    assert not stopped


def test_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fidelity.main(["--features", "5", "--out", str(tmp_path)]) == 2
    assert "at least 6 features" in capsys.readouterr().err
