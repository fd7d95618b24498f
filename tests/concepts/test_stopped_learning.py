"""A learning that is stopped goes on to the same words; what is kept belongs to it alone."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.concepts.toy import COUNTS, TOY, WIDTH, LinearDenoiser, pictures
from torch import Tensor

from rediffuse.concepts.choosing import choice_file
from rediffuse.concepts.starts import search_calls
from rediffuse.concepts.state import learning_seconds
from rediffuse.concepts.textual_inversion import learn
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Condition
from rediffuse.errors import ConfigError, ModelError, PlanError


class Killed(LinearDenoiser):
    """Stops as a killed program does: in the middle of a call."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        if self.calls >= self.after:
            raise KeyboardInterrupt
        return super().loss(x0, t, noise, condition)


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_a_killed_learning_ends_at_the_same_words(tmp_path: Path, decay: Any) -> None:
    photos, recipe = pictures(COUNTS, flips=True), replace(TOY, steps=90, decay=decay, weight_decay=0.01)
    whole = learn(photos, LinearDenoiser(), recipe=recipe, progress=False)
    file = tmp_path / "new" / "state.safetensors"
    per_step = 3 * recipe.batch_per_class
    for done in (10, 40, 52):  # before the first save, then 15 and 2 steps after one
        with pytest.raises(KeyboardInterrupt):
            learn(photos, Killed(done * per_step), recipe=recipe, progress=False, checkpoint=file)
    last = LinearDenoiser()
    ended = learn(photos, last, recipe=recipe, progress=False, checkpoint=file)
    assert last.calls == (90 - 75) * per_step  # 0 + 25 + 50: each piece went on from the last save
    assert ended.hash == whole.hash
    assert dict(ended.settings) == dict(whole.settings)
    again = LinearDenoiser()
    assert learn(photos, again, recipe=recipe, progress=False, checkpoint=file).hash == whole.hash
    assert again.calls == 0
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_the_step_under_way(tmp_path: Path) -> None:
    class Pressed(LinearDenoiser):
        def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
            before = self.calls
            found = super().loss(x0, t, noise, condition)
            if before < 6 * 3 * TOY.batch_per_class <= self.calls:
                signal.raise_signal(signal.SIGINT)
            return found

    photos, recipe, file = pictures(COUNTS), replace(TOY, steps=20), tmp_path / "state.safetensors"
    whole = learn(photos, LinearDenoiser(), recipe=recipe, progress=False)
    with pytest.raises(KeyboardInterrupt):
        learn(photos, Pressed(), recipe=recipe, progress=False, checkpoint=file)
    last = LinearDenoiser()
    assert learn(photos, last, recipe=recipe, progress=False, checkpoint=file).hash == whole.hash
    assert last.calls == (20 - 6) * 3 * TOY.batch_per_class


def test_a_learning_goes_on_with_its_classes_in_another_order(tmp_path: Path) -> None:
    photos, file = pictures(COUNTS), tmp_path / "state.safetensors"
    turned = photos.with_classes(tuple(reversed(photos.classes)))
    whole = learn(turned, LinearDenoiser(), recipe=replace(TOY, steps=40), progress=False)
    with pytest.raises(KeyboardInterrupt):
        learn(photos, Killed(30 * 3 * TOY.batch_per_class), recipe=replace(TOY, steps=40), progress=False, checkpoint=file)
    for _ in range(2):  # from the checkpoint, then of the finished learning
        ended = learn(turned, LinearDenoiser(), recipe=replace(TOY, steps=40), progress=False, checkpoint=file)
        assert ended.classes == turned.classes
        assert dict(ended.settings["starts"]) == dict(whole.settings["starts"])
        for name, vectors in ended.words.items():
            torch.testing.assert_close(vectors, whole.words[name], atol=1e-5, rtol=0)


def test_what_photos_are_called_makes_no_other_learning(tmp_path: Path) -> None:
    file, recipe = tmp_path / "state.safetensors", replace(TOY, steps=3)
    photos, model = pictures(COUNTS), LinearDenoiser()
    learn(photos, model, recipe=recipe, progress=False, checkpoint=file)
    renamed = ImageSet.of(list(photos), classes=photos.classes, name="the same elsewhere", flips=False)
    calls = model.calls
    learn(renamed, model, recipe=recipe, progress=False, checkpoint=file)
    assert model.calls == calls


def test_where_to_start_from_is_kept_before_the_first_step(tmp_path: Path) -> None:
    photos, file, recipe = pictures(COUNTS), tmp_path / "state.safetensors", replace(TOY, steps=90)
    with pytest.raises(KeyboardInterrupt):
        learn(photos, Killed(1), recipe=recipe, progress=False, checkpoint=file)
    assert learning_seconds(file) > 0


class KilledChoice(Killed):
    """Stops in the choice of start words."""

    def __init__(self, after: int) -> None:
        super().__init__(after)
        generator = torch.Generator().manual_seed(1)
        self.vocabulary |= {f"w{number}": 3 * torch.randn(1, WIDTH, generator=generator) for number in range(40)}
        self.known_words = tuple(self.vocabulary)


def test_a_stopped_choice_of_start_words_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first round, between rounds, in the second and the third; with the classes in another order too."""
    photos, recipe, file = pictures(COUNTS), replace(TOY, steps=2, start="nearest"), tmp_path / "words" / "learning.safetensors"
    batch = 8
    first = KilledChoice(10**9)
    whole = learn(photos, first, recipe=recipe, batch=batch, progress=False)
    choosing, done = 3 * search_calls(first, recipe), 0
    assert first.calls == choosing + 2 * 3 * 6
    for round_, after in enumerate((20, 90, 70, 60)):
        if round_ == 2:
            monkeypatch.setattr("rediffuse.concepts.choosing.SAVE_EVERY", 0.0)
        model = KilledChoice(after)
        turned = photos.with_classes(tuple(reversed(photos.classes))) if round_ == 1 else photos
        with pytest.raises(KeyboardInterrupt):
            learn(turned, model, recipe=recipe, batch=batch, progress=False, checkpoint=file)
        done += model.calls
        assert [path.name for path in file.parent.iterdir()] == ["learning.starts.json"]
    assert done < choosing
    last = KilledChoice(10**9)
    ended = learn(photos, last, recipe=recipe, batch=batch, progress=False, checkpoint=file)
    assert done + last.calls == first.calls
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert {name: start["word"] for name, start in ended.settings["starts"].items()} == {
        name: start["word"] for name, start in whole.settings["starts"].items()
    }
    assert {start["calls"] for start in ended.settings["starts"].values()} == {search_calls(first, recipe)}
    for name, own in ended.words.items():
        torch.testing.assert_close(own, whole.words[name], atol=1e-5, rtol=0)


def test_a_choice_of_start_words_belongs_to_its_photos_and_seed(tmp_path: Path) -> None:
    photos, recipe, file = pictures(COUNTS), replace(TOY, steps=2, start="nearest"), tmp_path / "learning.safetensors"
    with pytest.raises(KeyboardInterrupt):
        learn(photos, KilledChoice(50), recipe=recipe, progress=False, checkpoint=file)
    with pytest.raises(
        PlanError, match=r"learning\.starts\.json is the choice .* seed was 0, now 1.* delete this file, which holds no words"
    ):
        learn(photos, KilledChoice(10**9), recipe=recipe, seed=1, progress=False, checkpoint=file)
    learn(photos, KilledChoice(10**9), recipe=replace(recipe, steps=3), progress=False, checkpoint=file)  # other steps, the same choice
    choice_file(file).write_text("[]")
    file.unlink()
    with pytest.raises(ModelError, match="delete it, it holds no words"):
        learn(photos, KilledChoice(10**9), recipe=recipe, progress=False, checkpoint=file)


def test_the_time_of_a_killed_learning_counts(tmp_path: Path) -> None:
    photos, recipe, file = pictures(COUNTS), replace(TOY, steps=40), tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        learn(photos, Killed(30 * 18), recipe=recipe, progress=False, checkpoint=file)
    assert learning_seconds(file) > 0
    with safe_open(file, framework="pt") as opened:
        told = opened.metadata()
    save_file(load_file(file), file, metadata={**told, "seconds": "5000.0"})
    learn(photos, LinearDenoiser(), recipe=recipe, progress=False, checkpoint=file)
    whole = learning_seconds(file)
    assert 5000 < whole < 10_000
    learn(photos, LinearDenoiser(), recipe=recipe, progress=False, checkpoint=file)
    assert learning_seconds(file) == whole


def test_a_checkpoint_of_another_learning_is_refused(tmp_path: Path) -> None:
    file, photos, recipe = tmp_path / "state.safetensors", pictures(COUNTS), replace(TOY, steps=3)
    learn(photos, LinearDenoiser(), recipe=recipe, progress=False, checkpoint=file)
    for change, message in (
        ({"seed": 1}, "seed was 0, now 1"),
        ({"recipe": replace(recipe, learning_rate=0.5)}, "recipe.learning_rate was 0.3, now 0.5"),
        ({"photos": pictures({**COUNTS, "dog": 2})}, "other photos: 6 then, 7 now. Give another folder$"),
    ):
        given: dict[str, Any] = {"photos": photos, "recipe": recipe, **change}
        with pytest.raises(PlanError, match=message):
            learn(given.pop("photos"), LinearDenoiser(), progress=False, checkpoint=file, **given)
    begun = tmp_path / "begun.safetensors"
    with pytest.raises(KeyboardInterrupt):
        learn(photos, Killed(1), recipe=recipe, progress=False, checkpoint=begun)
    with pytest.raises(PlanError, match="Give another folder, or delete it: it is not finished"):  # which loses no words
        learn(photos, LinearDenoiser(), recipe=recipe, seed=1, progress=False, checkpoint=begun)
    file.write_bytes(b"no state at all")
    with pytest.raises(ModelError, match="no checkpoint"):
        learn(photos, LinearDenoiser(), recipe=recipe, progress=False, checkpoint=file)


def test_a_place_below_a_file_is_refused_before_a_word_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("rediffuse.concepts.textual_inversion._train", lambda *_: pytest.fail("learned first"))
    with pytest.raises(ConfigError, match=r"nothing can be written in .*file/words"):
        learn(pictures(COUNTS), LinearDenoiser(), recipe=TOY, progress=False, checkpoint=tmp_path / "file" / "words" / "state.safetensors")
