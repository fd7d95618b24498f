"""`rediffuse learn`: what it says it will cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Ended, fill
from tests.cli.test_bad_input import refused

COST = "3 words to learn, 24 training samples"


def test_a_dry_run_says_what_it_costs_and_writes_nothing(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    ended = rediffuse("learn", photos, "words", "--model", model, "--samples", 8, "--dry-run")
    assert ended.status == 0, ended.err
    assert COST in ended.out
    assert "about " in ended.out
    assert "a part is done" not in ended.out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(("asked", "used", "all_"), [(9, 8, 24), (3, 4, 12)])
@pytest.mark.parametrize("verb", ["learn", "augment"])
def test_samples_that_make_no_whole_steps_are_said(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, verb: str, asked: int, used: int, all_: int
) -> None:
    words = (verb, photos, "words", "--model", model, "--dry-run", *(("--copies", 1, "--steps", 2) if verb == "augment" else ()))
    ended = rediffuse(*words, "--samples", asked)
    assert ended.status == 0, ended.err
    assert f"--samples {asked} becomes {used}: a step of fast learns from 4 samples of each class." in " ".join(ended.err.split())
    assert f"{all_} training samples" in ended.out
    assert "becomes" not in rediffuse(*words, "--samples", used).err


def test_words_have_a_folder_of_their_own(rediffuse: Callable[..., Ended], photos: Path, model: Path, tmp_path: Path) -> None:
    others = fill(tmp_path / "others", {"cat": 1})
    for place, what in ((others, "pictures"), (model, "a model")):
        before = sorted(place.rglob("*"))
        refused(
            rediffuse("learn", photos, place, "--model", model, "--samples", 8), f"holds {what}; give learned words a folder of its own"
        )
        assert sorted(place.rglob("*")) == before


def test_the_cost_is_said_once_before_the_first_word(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rediffuse.concepts.concepts import Concepts

    command = ("learn", photos, "words", "--model", model, "--samples", 8)
    with monkeypatch.context() as patched:
        patched.setattr(Concepts, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = rediffuse(*command)
    assert stopped.status == 130
    assert stopped.err.count(COST) == 1
    assert "Of that a part is done" in rediffuse(*command, "--dry-run").out
    ended = rediffuse(*command)
    assert ended.status == 0, ended.err
    assert COST not in ended.err
    assert "All of that is done: the words are in words." in rediffuse(*command, "--dry-run").out
    assert COST not in rediffuse("learn", photos, "others", "--model", model, "--samples", 8, "--quiet").err
