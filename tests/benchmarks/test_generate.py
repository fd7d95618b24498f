"""The benchmark compares like with like: the same maths, the same images whatever measure is switched, the published call counts."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.arms import COPIES, Kit, _run_own, arms_of
from benchmarks.generate import main, share_rows
from benchmarks.machine import matmul_peak
from benchmarks.published import largest_difference
from PIL import Image
from tests.tiny import tiny_stable

from rediffuse.methods.da_fusion import STRENGTHS


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tiny_stable(tmp_path_factory.mktemp("model") / "tiny", prediction_type=request.param)
    return Kit.open(str(folder), "digits", 2 * COPIES, 8, "cpu")


def test_the_published_loop_and_ours_do_the_same_maths(kit: Kit) -> None:
    before = kit.pipeline.scheduler
    difference = largest_difference(kit.pipeline, kit.method("float32", "published"), kit.photos[0].image, kit.prompt, (1.0, 0.25))
    assert difference < 1e-4
    assert kit.pipeline.scheduler is before
    assert not kit.pipeline.unet._forward_hooks
    assert largest_difference(kit.pipeline, kit.method("float32", "default"), kit.photos[0].image, kit.prompt, (1.0,)) > 1e-4


def test_what_is_switched_changes_no_image(kit: Kit, tmp_path: Path) -> None:
    made = {}
    for place, measures in enumerate(({"solver"}, {"solver", "batching"}, {"solver", "batching", "packing", "latents", "prompts"})):
        folder = tmp_path / str(place)
        folder.mkdir()
        assert _run_own(kit, frozenset(measures), folder, 4) == 4
        made[place] = np.stack([np.asarray(Image.open(file), dtype=np.int16) for file in sorted(folder.iterdir())])
    assert made[0].std() > 0
    assert np.abs(made[1] - made[0]).max() <= 1
    assert np.abs(made[2] - made[0]).max() <= 1


def test_work_is_counted_as_published(kit: Kit) -> None:
    arms = arms_of(kit, "published", "equal", "default")
    assert arms["published"].work().steps / (2 * COPIES) == statistics.mean((51, 38, 26, 13))
    assert arms["published"].work().images_a_call == 1
    equal = arms["equal"].work()
    assert (equal.images, equal.steps) == (2 * COPIES, 32 * 2 * COPIES)
    assert equal.steps / equal.calls == equal.images_a_call > 4
    assert arms["default"].work().steps == 4 * (12 + 9 + 6 + 3)
    assert [arm.shown for arm in arms.values()].count(True) == 2 + len(kit.models)


def test_shares_multiply_to_the_whole(kit: Kit) -> None:
    names = arms_of(kit, "published loop", "equal", "default")
    rates = {name: [1.0 + place, 2.0 + place] for place, name in enumerate(names)}
    rows = share_rows(kit, rates)
    assert len(rows) == 1 + len(kit.measures)
    assert "lost_without_it" not in rows[0]
    constant = {name: [float(1 + place)] for place, name in enumerate(names)}
    rows = share_rows(kit, constant)
    assert np.prod([row["adds"] for row in rows]) == pytest.approx(rows[-1]["speedup_so_far"])
    assert kit.without("batching") == frozenset(kit.measures) - {"batching", "packing"}


def test_the_peak_of_matrix_products_is_found() -> None:
    assert matmul_peak(torch.float32, torch.device("cpu"), sides=(64,)) > 0


def test_wrong_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--images", "12"]) == 2
    assert "images must be a multiple of 8" in capsys.readouterr().err
    assert main(["--repeats", "0"]) == 2


@pytest.mark.slow
def test_the_whole_benchmark(tmp_path: Path) -> None:
    folder = tiny_stable(tmp_path / "tiny", prediction_type="v_prediction")
    assert main(["--model", str(folder), "--images", "16", "--repeats", "1", "--batch", "8", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "bench_generate.json").read_text())
    keys = {"speedup_equal_steps", "speedup_default", "slot_use", "images_per_call"}
    half = {"speedup_equal_steps_float32"} if any(row.get("numbers") == "bfloat16" for row in result["rows"]) else set()
    assert set(result["headline"]) == keys | half
    assert {row["table"] for row in result["rows"]} == {"rates", "shares", "machine"}
    assert result["command"].startswith("python -m benchmarks.generate --model")
    assert STRENGTHS == (0.25, 0.5, 0.75, 1.0)
