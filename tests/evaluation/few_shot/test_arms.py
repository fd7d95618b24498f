"""The copies of an arm: how their words are learned, what they cost, and that none is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.evaluation.few_shot.test_compare import MAKING
from tests.tiny import tiny_stable
from tests.training import toys

from rediffuse.concepts.textual_inversion import learn
from rediffuse.data.decoding import FilePayload
from rediffuse.data.splits import few_shot
from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.errors import DataError
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


def test_the_stage_of_a_killed_learning_counts_all_its_lives(model: Denoiser, tmp_path: Path) -> None:
    first = copies(model, tmp_path)
    state = tmp_path / "words/seed-0/shots-2.state"
    learn(few_shot(first.pool, 2, 0), model, recipe=MAKING.recipe, seed=0, progress=False, checkpoint=state)
    with safe_open(state, framework="pt") as opened:
        told = opened.metadata()
    save_file(load_file(state), state, metadata={**told, "seconds": "5000.0"})  # finished, and killed before the words were saved
    first.words(2, 0)
    (stage,) = first.store.stages()
    assert (stage.name, stage.seconds) == ("learn", 5000.0)


def test_a_lost_copy_is_made_again_before_arms_are_compared(model: Denoiser, tmp_path: Path) -> None:
    made = copies(model, tmp_path).of(DA_FUSION, 2, 0)
    assert made is not None
    assert len(made) == 2 * 2 * 2
    images = copies(model, tmp_path).folder(DA_FUSION, 2, 0) / "images"
    (images / made.ids[0]).unlink()
    (images / made.ids[5]).write_bytes(b"half of a file")
    again = copies(model, tmp_path).of(DA_FUSION, 2, 0)
    assert again is not None
    assert dict(zip(again.ids, again.digests, strict=True)) == dict(zip(made.ids, made.digests, strict=True))


def test_arms_with_fewer_copies_are_not_compared(model: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = copies(model, tmp_path).of(DA_FUSION, 2, 0)
    assert made is not None
    lost, read = made.ids[3], FilePayload.read

    def failing(payload: FilePayload) -> Any:
        if str(payload.path).endswith(lost):
            raise DataError("the disk is broken")
        return read(payload)

    monkeypatch.setattr(FilePayload, "read", failing)
    with pytest.raises(DataError, match=f"{lost} cannot be read right after it was made: the disk is broken. Check the disk"):
        copies(model, tmp_path).of(DA_FUSION, 2, 0)
