"""The measure of the search for near-duplicates: changes are what they are called, and shares are of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import duplicates
from rediffuse.evaluation.results import read_result


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)


def test_changes_are_what_they_are_called() -> None:
    image = picture(0)
    pixels = np.asarray(image)
    made = {name: np.asarray(change(image)) for name, change in duplicates.CHANGES.items()}
    assert np.array_equal(made["mirrored"], pixels[:, ::-1])
    assert made["halved"].shape == (32, 32, 3)
    assert 0 < np.abs(made["JPEG at quality 50"].astype(int) - pixels).mean() < 8
    wide = np.asarray(Image.fromarray(pixels[4:60, 4:60]).resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(made["4 of 64 pixels cut off each side"], wide)


def test_copies_are_found_and_strangers_are_not(tmp_path: Path) -> None:
    for place in range(12):
        folder = tmp_path / "photos" / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(place).save(folder / f"{place}.png")
    for split, first in (("train", 20), ("test", 30)):
        for place in range(first, first + 6):
            folder = tmp_path / "flat" / split / "ab"[place % 2]
            folder.mkdir(parents=True, exist_ok=True)
            picture(place).save(folder / f"{place}.png")
    flat = ["--flat", str(tmp_path / "flat"), "--flat-shots", "1"]
    assert duplicates.main(["--data", str(tmp_path / "photos"), "--shots", "6", *flat, "--out", str(tmp_path)]) == 0
    found = read_result(tmp_path / "bench_duplicates.json")
    assert [row["change"] for row in found.rows] == list(duplicates.CHANGES)
    assert found.rows[0]["found"] == found.rows[1]["found"] == found.rows[0]["nearest_is_the_source"] == 1
    assert all(0 <= row["low"] <= row["found"] <= row["high"] <= 1 for row in found.rows)
    assert found.headline["false_pairs"].value == found.headline["false_pairs_flat"].value == 0


def test_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duplicates.main(["--data", str(tmp_path), "--shots", "3", "--out", str(tmp_path)]) == 2
    assert "even number" in capsys.readouterr().err
