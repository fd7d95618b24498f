"""The benchmark compares learnings of the same words, and its published loop does what was published."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from benchmarks.inversion import alone, main, published, together
from tests.concepts.toy import pictures

from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.denoisers.base import Denoiser

RECIPE = InversionRecipe(steps=4, batch_per_class=2, learning_rate=0.05, start="the")


def test_the_arms_learn_words_of_the_same_kind(stable: Denoiser) -> None:
    photos = pictures({"cat": 2, "dog": 1}, side=16)
    before = copy.deepcopy(stable.state_dict())
    one, two, loop = (arm(stable, photos, RECIPE) for arm in (together, alone, published))
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-4) for name in photos.classes)
    for name in photos.classes:
        start = stable.word_vectors("the")  # type: ignore[operator]
        moved = (loop[name] - start).abs()
        assert moved.shape == one[name].shape
        # Of AdamW: a ratio of moments beyond 1 by up to .7 % in four steps (Cauchy-Schwarz), and decay towards zero of what is there.
        farthest = 1.01 + RECIPE.weight_decay * (float(start.abs().max()) + RECIPE.steps * RECIPE.learning_rate)
        assert 0.5 * RECIPE.learning_rate < float(moved.max()) <= RECIPE.steps * RECIPE.learning_rate * farthest
    assert all(torch.equal(before[name], value) for name, value in stable.state_dict().items())


def test_a_short_run_writes_its_result(stable_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--classes", "2", "--shots", "1", "--steps", "2", "--repeats", "2"]
    assert main(["--model", str(stable_folder), "--device", "cpu", "--out", str(tmp_path), *short]) == 0
    result = json.loads((tmp_path / "bench_inversion.json").read_text())
    assert [(row["arm"], row["samples"], len(row["all_seconds"])) for row in result["rows"]] == [
        ("together", 16, 2), ("alone", 16, 2), ("published", 16, 2),
    ]  # fmt: skip
    assert set(result["headline"]) == {"speedup_joint", "speedup_over_published"}
    assert str(tmp_path) not in result["command"]
    assert "speedup_joint" in capsys.readouterr().out
    assert main(["--model", "no such model", "--out", str(tmp_path)]) == 2
