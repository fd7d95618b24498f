"""The copies of an arm: how their words are learned, what they cost, and that none is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.few_shot.test_compare import MAKING
from tests.tiny import tiny_stable
from tests.training import toys

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.evaluation.few_shot.arms import Copies
from rediffuse.evaluation.few_shot.cells import CellStore
from rediffuse.evaluation.few_shot.settings import DA_FUSION, CompareSettings, Making


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load(tiny_stable(tmp_path_factory.mktemp("models") / "tiny"), device="cpu", dtype="float32")


def copies(model: Denoiser, out: Path, making: Making = MAKING, **options: Any) -> Copies:
    """Of two classes, three photos of each."""
    settings = CompareSettings(shots=(2,), seeds=(0,), arms=(DA_FUSION,), size=16, making=replace(making, copies=2), **options)
    return Copies(toys.striped(3, classes=2), model, settings, CellStore(out, 10), False)


def test_words_are_learned_in_calls_of_the_given_batch(model: Denoiser, tmp_path: Path) -> None:
    assert copies(model, tmp_path, replace(MAKING, batch=1)).words(2, 0).settings["batch"] == 1
