"""What cheaper ways keep of DiffAug's gain: each gain is over the arm's own control, and a small run says all that the recipe does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.recipes.test_diffaug_cifar10 import judgement
from tests.recipes.tiny_runs import write_pictures
from tests.tiny_pixel import tiny_pixel
from tests.training import robust_run, toys

from rediffuse.recipes import diffaug_cheaper
from rediffuse.recipes.robust.arms import CHEAPER, FULL, REPEATED, REPEATED_QUARTER
from rediffuse.recipes.robust.cells import train
from rediffuse.recipes.robust.nets import Budget
from rediffuse.recipes.robust.table import kept_share, rows_of
from rediffuse.training.objectives import plain
from rediffuse.training.pool import PixelBank, pool_of
from rediffuse.training.procedure import Procedure
from rediffuse.training.settings import TrainSettings

QUARTER = "bank-5-quarter"


def test_what_a_cheaper_way_keeps_is_a_share_of_the_full_gain() -> None:
    shares = {"a": 0.5, "b": 0.7, "c": 0.65, "d": 0.6}
    control, full, ours, other = ([judgement(arm, seed, share) for seed in (0, 1)] for arm, share in shares.items())
    kept = kept_share(ours, control, full, control, "corrupted")
    assert kept is not None
    assert kept.value == pytest.approx(0.75)
    assert kept.low is not None
    assert kept.high is not None
    assert 0.5 < kept.low < 0.75 < kept.high < 0.95
    apart = kept_share(ours, other, full, control, "corrupted")
    assert apart is not None
    assert apart.value == pytest.approx(0.05 / 0.2)
    whole = kept_share(full, control, full, control, "corrupted")
    assert whole is not None
    assert whole.low == pytest.approx(1)
    assert kept_share(ours, full, control, full, "corrupted") is None


def test_each_gain_is_over_the_arms_own_control() -> None:
    labels = {"test": [k % 2 for k in range(200)]}
    shares = {"plain": 0.5, REPEATED: 0.525, REPEATED_QUARTER: 0.52, FULL: 0.7, "bank-10": 0.65, QUARTER: 0.6}
    runs = [judgement(arm, seed, share) for seed in range(2) for arm, share in shares.items()]
    rows = rows_of(runs, labels, CHEAPER)
    found = diffaug_cheaper.with_kept(rows, runs)
    assert found["gain_kept_bank"].value == pytest.approx((0.6 - 0.52) / (0.7 - 0.5))
    assert found["gain_kept_bank_over_plain"].value == pytest.approx((0.6 - 0.5) / (0.7 - 0.5))
    assert found["resnet-14_bank-10_kept"].value == pytest.approx((0.65 - 0.525) / (0.7 - 0.5))
    assert {row["arm"] for row in rows if "kept" in row} == {"bank-10", QUARTER}
    without = [run for run in runs if run.cell.arm != REPEATED_QUARTER]  # nothing else stands in for it
    assert "gain_kept_bank" not in diffaug_cheaper.with_kept(rows_of(without, labels, CHEAPER), without)


def test_a_trial_of_the_cheaper_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path / "data" / "cifar10", split, 42, size=32)
    denoiser = tiny_pixel(tmp_path / "tiny", sample_size=32)
    arms = ["plain", REPEATED_QUARTER, FULL, QUARTER]
    asked = [
        "--data", str(tmp_path / "data"), "--denoiser", str(denoiser), "--work", str(tmp_path / "work"),
        "--out", str(tmp_path / "out"), "--arms", *arms, "--seeds", "1", "--epochs", "1",
        "--draws", "1", "--pictures", "24", "--held", "6", "--device", "cpu",
    ]  # fmt: skip
    assert diffaug_cheaper.main(asked) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("A step costs the classifier")]
    assert ["denoiser to 1 classifier" in line for line in told] == [False, False, True, True]  # a line a cell
    found = json.loads((tmp_path / "out" / "reduced_diffaug_cheaper.json").read_text())["rows"]
    rows = [row for row in found if row["table"] == "arms"]
    assert [row["arm"] for row in rows] == arms
    gains = [row for row in found if row["table"] == "gains"]
    pairs = [(REPEATED_QUARTER, "plain"), (FULL, "plain"), (QUARTER, REPEATED_QUARTER), (QUARTER, "plain")]
    assert [(row["arm"], row["over"]) for row in gains] == pairs


def test_a_cell_says_how_long_its_steps_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pool_of(toys.striped(2, size=32), None, PixelBank(32))
    budget = Budget(settings=TrainSettings(steps=8, batch=2, learning_rate=0.01, weight_decay=0.0), procedure=Procedure())
    done: list[tuple[int, int]] = []
    train(robust_run.steady_net(), pool, plain(2), budget, 0, tmp_path / "cell.pt", lambda *counts: done.append(counts))
    told = capsys.readouterr().err
    assert "(2 views); there is no denoiser." in told
    assert "A step of 2 photos takes" in told
    assert done == [(step, 8) for step in range(1, 9)]
