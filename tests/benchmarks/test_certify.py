"""The benchmark's published loop certifies what ours does, and a short run writes its result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.certify import Work, main, ours, published
from tests.evaluation.certify.toys import half_space, noise_pictures
from tests.tiny_pixel import tiny_pixel, tiny_unet

from rediffuse.denoisers.unet2d import UNet2DDenoiser
from rediffuse.evaluation.certify.smoothing import Smoothing


def test_both_loops_find_the_same_radii() -> None:
    images, plan = noise_pictures(2, 8), Smoothing(sigmas=(0.25,), selection=20, draws=500)
    denoiser = UNet2DDenoiser(tiny_unet(sample_size=8), {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000})
    work = Work(models=[half_space(8)], images=images, size=8, plan=plan, chunk=260)
    for (one, near), (two, far) in zip(ours(work, denoiser, work.models)[0], published(work, denoiser)[0], strict=True):
        assert one == two
        assert near == pytest.approx(far, abs=0.06)  # other noise, the same network


def test_a_short_run_writes_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_pixel(tmp_path / "model")
    short = ["--images", "2", "--selection", "3", "--draws", "6", "--repeats", "2", "--device", "cpu"]
    assert main(["--model", str(folder), "--out", str(tmp_path), *short]) == 0
    result = json.loads((tmp_path / "bench_certify.json").read_text())
    assert [(row["arm"], row["draws"], len(row["all_seconds"])) for row in result["rows"]] == [
        ("together", 36, 2), ("float32", 36, 2), ("alone", 36, 2), ("published", 36, 2),
    ]  # fmt: skip
    assert set(result["headline"]) == {"certify_speedup", "certify_speedup_float32", "certify_speedup_one_classifier"}
    assert str(tmp_path) not in result["command"]
    assert "certify_speedup" in capsys.readouterr().out
    assert main(["--model", "no such model", "--out", str(tmp_path)]) == 2
