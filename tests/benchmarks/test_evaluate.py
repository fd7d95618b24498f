"""Both yardsticks in one process and one file; without the other maker's package nothing is measured."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from tests.evaluation.corruptions.toys import pictures
from tests.tiny_pixel import tiny_pixel

from benchmarks import corruptions, evaluate
from rediffuse.evaluation.corruptions.constants import ALL, COMMON

INSTALLED = find_spec("imagecorruptions") is not None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures of two classes under `test`."""
    for row, picture in enumerate(pictures(4).permute(0, 2, 3, 1).numpy()):
        file = tmp_path / "data" / "test" / "ab"[row % 2] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    return tmp_path / "data"


def test_copies_are_timed_alone(data: Path, tmp_path: Path) -> None:
    assert corruptions.main(["--data", str(data), "--images", "2", "--repeats", "1", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "bench_corruptions.json").read_text())
    assert [row["corruption"] for row in result["rows"]] == list(ALL)
    times = {row["corruption"]: row["ours_ms"] for row in result["rows"]}
    assert result["headline"]["corruptions_seconds"]["value"] == pytest.approx(sum(times[name] for name in COMMON) * 5 * 10)
    assert ("corruptions_speedup" in result["headline"]) == INSTALLED


@pytest.mark.skipif(not INSTALLED, reason="the extra `corruptions` is not installed")
def test_both_stand_in_one_result(data: Path, tmp_path: Path) -> None:
    folder = tiny_pixel(tmp_path / "model")
    short = ["--certified", "2", "--selection", "3", "--draws", "6", "--corrupted", "2", "--repeats", "1", "--device", "cpu"]
    assert evaluate.main(["--model", str(folder), "--data", str(data), "--out", str(tmp_path), *short]) == 0
    result = json.loads((tmp_path / "bench_evaluate.json").read_text())
    assert set(result["headline"]) == set(evaluate.HEADLINE)
    tables = [row["table"] for row in result["rows"]]
    assert tables == ["certificates"] * 4 + ["corruptions"] * len(ALL)
    assert {(row["images"], row["draws"]) for row in result["rows"] if row["table"] == "certificates"} == {(2, 36)}
    assert not (tmp_path / "bench_certify.json").exists()


@pytest.mark.skipif(INSTALLED, reason="the extra `corruptions` is installed")
def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--out", str(tmp_path)]) == 2
    assert "'.[corruptions]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
