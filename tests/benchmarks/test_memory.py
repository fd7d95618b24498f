"""Memory of parts of suites, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import memory
from rediffuse.data import folder
from rediffuse.evaluation.results import read_result


@pytest.mark.slow
def test_each_suite_is_measured_at_two_sizes(tmp_path: Path) -> None:
    assert memory.main(["--images", "300", "200", "--out", str(tmp_path)]) == 0
    found = read_result(tmp_path / "bench_memory.json")
    assert [(row["suite"], row["images"]) for row in found.rows] == [(suite, count) for count in (200, 300) for suite in memory.SUITES]
    assert all(row["peak_gb"] >= row["opened_gb"] >= row["begun_gb"] > 0 for row in found.rows)


def test_files_lie_in_folders_of_their_classes(tmp_path: Path) -> None:
    memory.write_pictures(tmp_path, 5, 1)
    images = folder(tmp_path)
    assert images.classes == ("cat", "dog")
    assert images.counts() == (3, 2)
    assert set(images.sizes) == {(32, 32)}


def test_two_sizes_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main(["--images", "200", "200", "--out", str(tmp_path)]) == 2
    assert "two different numbers" in capsys.readouterr().err
