"""Few steps against many: the distance is what it says, and more steps come closer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.concepts.toy import pictures
from tests.tiny import tiny_stable

from rediffuse.denoisers.load import load
from rediffuse.recipes.sampling_steps import psnr, rows_of
from rediffuse.training.backbones import open_backbone


def test_psnr_of_a_known_distance() -> None:
    images = torch.full((2, 3, 4, 4), 0.5)
    assert psnr(images + 0.1, images) == pytest.approx(20.0, abs=1e-4)
    assert psnr(images, images) == float("inf")


def test_more_steps_come_closer(tmp_path: Path) -> None:
    model = load(str(tiny_stable(tmp_path / "tiny")), device="cpu", dtype="float32")
    photos = pictures({"cat": 2, "dog": 1}, side=16)
    rows = rows_of(model, photos, open_backbone("scratch", photos.classes, size=16), [2, 8], 16)
    assert len(rows) == 4 * 3
    for strength in (0.25, 0.5, 0.75, 1.0):
        few, many, reference = (row["psnr_to_reference"] for row in rows if row["strength"] == strength)
        assert few < many
        assert reference is None  # nothing is compared with itself
    slowest = [row["seconds"] for row in rows if row["steps"] == 16]
    assert sum(slowest) > sum(row["seconds"] for row in rows if row["steps"] == 2)  # those of the reference count its own making
