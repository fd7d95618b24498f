"""Memory of two suites, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import memory
from rediffuse.evaluation.results import read_result


@pytest.mark.slow
def test_each_suite_is_measured_at_two_sizes(tmp_path: Path) -> None:
    assert memory.main(["--images", "200", "120", "--out", str(tmp_path)]) == 0
    found = read_result(tmp_path / "bench_memory.json")
    assert [(row["suite"], row["images"]) for row in found.rows] == [(suite, count) for suite in memory.SUITES for count in (120, 200)]
    assert all(row["peak_gb"] >= row["opened_gb"] > 0 for row in found.rows)


def test_an_encoded_picture_is_that_picture() -> None:
    images = memory.pictures(3, 0)
    assert [example.label for example in images] == [0, 1, 0]  # reading checks the digest
    assert images.digests != memory.pictures(3, 1).digests


def test_two_sizes_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main(["--images", "200", "200", "--out", str(tmp_path)]) == 2
    assert "two different numbers" in capsys.readouterr().err
