"""The benchmark compares like with like: views of one draw agree, and every kind of step is timed against its equal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.diffaug import SAME_MATHS, check_same, main
from tests.tiny_pixel import tiny_pixel

from rediffuse.denoisers.load import load
from rediffuse.denoisers.pixel import PixelDenoiser


def test_the_published_class_and_ours_make_the_same_views(tmp_path: Path) -> None:
    exact = load(str(tiny_pixel(tmp_path / "tiny")), device="cpu", dtype="float32")
    assert isinstance(exact, PixelDenoiser)
    side = exact.size or 32
    images = torch.rand(6, 3, side, side, generator=torch.Generator().manual_seed(1))
    assert check_same(exact, images) < SAME_MATHS


def test_a_short_run_writes_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_pixel(tmp_path / "tiny", sample_size=32)
    short = ["--images", "4", "--batch", "8", "--pictures", "32", "--repeats", "1", "--device", "cpu"]
    assert main(["--model", str(folder), "--out", str(tmp_path), *short]) == 0
    result = json.loads((tmp_path / "bench_diffaug.json").read_text())
    steps = {row["step"]: row for row in result["rows"] if "step" in row}
    assert steps["plain"]["to_plain_batch"] == 1
    assert steps["DiffAug"]["samples"] == steps["plain, two views"]["samples"] == 2
    assert {row["arm"] for row in result["rows"] if "arm" in row} == {"DiffAug", "DiffAug, float32", "published class"}
    assert str(tmp_path) not in result["command"]
    assert "speedup_over_published" in capsys.readouterr().out
    assert main(["--model", "no such model", "--out", str(tmp_path)]) == 2
