"""How well words are learned, by budget: the whole recipe on a small model, and what its headline says of few seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from tests.concepts.toy import pictures
from tests.tiny import tiny_stable

from rediffuse.denoisers.load import load
from rediffuse.recipes.learning_budget import STRENGTHS, headline, rows_of
from rediffuse.training.backbones import open_backbone


def test_an_interval_waits_for_four_seeds() -> None:
    shares = [0.2, 0.3, 0.4, 0.3]
    rows = [{"way": "word", "start": "the", "samples": 100, "recognised": share} for share in shares]
    few, enough = headline(rows[:3])["by_word_the_100"], headline(rows)["by_word_the_100"]
    assert (few.value, few.low, few.high) == (pytest.approx(0.3), None, None)
    half = 3.182446 * 0.0816497 / 2  # the t quantile of three degrees of freedom, the deviation, the root of four
    assert (enough.low, enough.high) == (pytest.approx(0.3 - half, abs=1e-6), pytest.approx(0.3 + half, abs=1e-6))


def test_every_way_redraws_the_same_photos(tmp_path: Path) -> None:
    model = load(str(tiny_stable(tmp_path / "tiny")), device="cpu", dtype="float32")
    pool = pictures({"cat": 3, "dog": 3}, side=16)
    given = argparse.Namespace(seeds=2, shots=2, starts=["the"], samples=[4, 8])
    rows = rows_of(model, pool, open_backbone("scratch", pool.classes, size=16), given)
    assert [(row["seed"], row["way"], row["samples"]) for row in rows] == [
        (seed, way, samples) for seed in (0, 1) for way, samples in (("name", 0), ("word", 4), ("word", 8))
    ]
    for row in rows:
        shares = [row[f"recognised_{strength:g}"] for strength in STRENGTHS]
        assert row["recognised"] == pytest.approx(sum(shares) / 4)
        assert all(4 * share in range(5) for share in shares)  # of two photos of each of two classes
        assert row["photos"] == next(each["photos"] for each in rows if each["seed"] == row["seed"])
    assert set(headline(rows)) == {"by_name", "by_word_the_4", "by_word_the_8"}
