"""Figures are drawn from results, each from its own, and none without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Drawing
from PIL import Image
from tests.recipes.test_render import result

from rediffuse.evaluation.results import Figure, save_result
from rediffuse.recipes.figures import FIGURES, main, table

ARMS = ("plain", "diffaug")
INTERVAL = Figure(value=0.05, low=0.01, high=0.09)


def robust_row(arm: str) -> dict[str, Any]:
    ends = {"": 0.6, "_low": 0.5, "_high": 0.7}
    shown = {f"{name}{end}": value for name in ("clean", "corrupted", "corrupted_5") for end, value in ends.items()}
    return {"table": "arms", "net": "resnet-14", "arm": arm, **shown}


def curve_row(arm: str, smoother: str, sigma: float) -> dict[str, Any]:
    beside = {"smoother": smoother, "draws": 1000, "images": 500, "ceiling": 2.5 * sigma}
    return {"table": "curve", "arm": arm, "sigma": sigma, **beside, "points": [[0.0, 0.8], [sigma, 0.2], [2.5 * sigma, 0.1]]}


SMOOTHED = (*((arm, "denoised") for arm in ARMS), ("noise", "no denoiser"))
RESULTS = {
    "gains": result("compare_toys", {"gain_over_standard_scratch": INTERVAL, "gain_over_real_guidance_scratch": Figure(value=0.0)}),
    "robustness": result("diffaug_cifar10", {}, [robust_row(arm) for arm in ARMS] + [{"table": "corruptions", "arm": "plain"}]),
    "certificates": result(
        "certified_cifar10",
        {},
        [curve_row(arm, smoother, sigma) for arm, smoother in SMOOTHED for sigma in (0.25, 0.5)],
    ),
    "entropy": result(
        "calibration_cifar10", {}, [{"table": "entropy", "arm": arm, "t": t, "share": t / 999} for arm in ARMS for t in (0, 500, 999)]
    ),
    "reliability": result(
        "calibration_cifar10", {}, [{"table": "diagram", "arm": arm, "confidence": [None, 0.9], "accuracy": [None, 0.8]} for arm in ARMS]
    ),
}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_each_figure_has_a_result_of_its_own(tmp_path: Path, name: str) -> None:
    save_result(RESULTS[name], tmp_path / "results")
    assert main(["--results", str(tmp_path / "results"), "--out", str(tmp_path / "docs")]) == 0
    assert [file.name for file in (tmp_path / "docs").iterdir()] == [f"{name}.png"]
    with Image.open(tmp_path / "docs" / f"{name}.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 8  # something is drawn


def test_a_reduced_result_stands_in_for_a_whole_one() -> None:
    rows = [{"table": "arms", "arm": "plain"}]
    reduced = result("reduced_x", {}, rows)
    assert table({"reduced_x": reduced}, "x", "arms") == rows
    assert table({"reduced_x": reduced, "x": result("x", {}, [])}, "x", "arms") == []


def test_certificates_stand_under_their_ceilings_beside_the_control() -> None:
    axes = Drawing().add_subplot()
    assert FIGURES["certificates"]({"certified_cifar10": RESULTS["certificates"]}, axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*ARMS, "noise, no denoiser"]
    upright = {line.get_xdata()[0]: line.get_linestyle() for line in axes.lines if len(set(line.get_xdata())) == 1}
    assert upright == {0.625: "-", 1.25: "--"}
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("\u03c3 0.25", 0.625), ("\u03c3 0.5", 1.25)]
    curves = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert [(line.get_xdata()[-1], line.get_linestyle()) for line in curves] == list(upright.items()) * 3
    assert len({line.get_color() for line in curves}) == 3
    assert "500 pictures, N = 1,000 draws each" in axes.get_xlabel()


def test_without_results_nothing_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(tmp_path), "--out", str(tmp_path / "docs")]) == 2
    assert "holds no results" in capsys.readouterr().err
    save_result(result("bench_toy", {"speedup": INTERVAL}), tmp_path)
    assert main(["--results", str(tmp_path), "--out", str(tmp_path / "docs")]) == 0
    assert "nothing to draw" in capsys.readouterr().out
    assert not (tmp_path / "docs").exists()


def test_rows_are_those_of_the_table() -> None:
    assert len(table({"diffaug_cifar10": RESULTS["robustness"]}, "diffaug_cifar10", "arms")) == 2
