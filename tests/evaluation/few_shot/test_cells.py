"""The folder of a comparison: what is damaged there is named with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.few_shot.cells import CellStore, Stage
from rediffuse.evaluation.few_shot.settings import Cell, CompareSettings
from rediffuse.training.backbones import SCRATCH

CELL = Cell(level="scratch", arm="standard", shots=1, seed=0)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "learn", "strange": 1}'])
def test_a_damaged_stage_is_named(tmp_path: Path, content: str) -> None:
    store = CellStore(tmp_path, 10)
    stage = Stage(name="learn", arm="da-fusion", shots=1, seed=0, seconds=2.0)
    store.add_stage(stage)
    assert store.stages() == [stage]
    (tmp_path / "stages" / "other.json").write_text(content)
    with pytest.raises(DataError, match=r"other.json is damaged.*remove it"):
        store.stages()


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_failure_is_named(tmp_path: Path, content: str) -> None:
    store = CellStore(tmp_path, 10)
    assert store.failure(CELL) is None
    store.fail(CELL, "no memory")
    assert store.failure(CELL) == "no memory"
    next(tmp_path.rglob("*.failed.json")).write_text(content)
    with pytest.raises(DataError, match=r"failed.json is damaged.*remove it"):
        store.failure(CELL)


def test_settings_of_another_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(DataError, match=r"settings.json is damaged: it holds a list"):
        CellStore(tmp_path, 10).check({})


def test_levels_have_keys_of_their_own() -> None:
    """Both would be `resnet64` in the headline, and one figure lost."""
    for one, other in (("resnet-64", "resnet64"), ("--", "scratch")):
        with pytest.raises(ConfigError, match=f"levels must differ in letters and digits, .* got {one}, {other}"):
            CompareSettings(levels=((one, SCRATCH), (other, SCRATCH)))


def test_photos_are_fitted_as_pictures_are_generated() -> None:
    with pytest.raises(ConfigError, match=r"fit must be one of pad, crop, squash, since .* got 'crop:0\.875'"):
        CompareSettings(fit="crop:0.875")  # type: ignore[arg-type]
