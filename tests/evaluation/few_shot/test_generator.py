"""What a generator's own folder says of it, beside every figure that hangs on its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tiny_stable

from rediffuse.denoisers.load import load
from rediffuse.errors import DataError
from rediffuse.evaluation.few_shot.generator import CARD, WEAK, is_weak, limits_of, read_card


@pytest.mark.parametrize(("score", "weak"), [(0.31, True), (0.5, False), (0.8, False), (None, False), ("low", False)])
def test_a_low_score_heads_the_notes(tmp_path: Path, score: object, weak: bool) -> None:
    folder = tiny_stable(tmp_path / "model")
    (folder / CARD).write_text(json.dumps({"classification_accuracy_score": score}), encoding="utf-8")
    model = load(folder)
    assert is_weak(read_card(model)) is weak
    assert limits_of(model) == [WEAK] * weak


def test_a_model_without_a_card_says_nothing_of_itself(tmp_path: Path) -> None:
    model = load(tiny_stable(tmp_path / "model"))
    assert read_card(model) == {}
    assert limits_of(model) == []


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    folder = tiny_stable(tmp_path / "model")
    (folder / CARD).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="mend or remove it"):
        limits_of(load(folder))
