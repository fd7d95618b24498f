"""Learning against a closed form on the linear model, and its promises on a real, tiny Stable Diffusion."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.concepts.toy import WIDTH, LinearDenoiser, picture, pictures
from torch import Tensor

from rediffuse.concepts.choosing import choice_file
from rediffuse.concepts.concepts import Concepts
from rediffuse.concepts.prompts import TEMPLATES
from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.concepts.shots import encode_shots
from rediffuse.concepts.starts import search_calls
from rediffuse.concepts.state import learning_seconds
from rediffuse.concepts.textual_inversion import default_batch, learn
from rediffuse.data.types import Example, ImageSet
from rediffuse.denoisers.base import Condition, Denoiser
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.load import load
from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.errors import ConfigError, DataError, ModelError, PlanError
from rediffuse.progress import Bar

COUNTS = {"cat": 2, "dog": 1, "red bird": 3}
TOY = InversionRecipe(steps=300, batch_per_class=6, learning_rate=0.3, start="the", decay="cosine", weight_decay=0.0)
STABLE = InversionRecipe(steps=12, batch_per_class=3, learning_rate=0.05, start="the", vectors=2)


def one_class(photos: ImageSet, name: str) -> ImageSet:
    label = photos.classes.index(name)
    mine = [replace(example, label=0) for example in photos if example.label == label]
    return ImageSet.of(mine, classes=(name,), flips=photos.flips)


def latents_of(photos: ImageSet, name: str) -> Tensor:
    return torch.stack(list(one_class(photos, name).fitted(8)))


def distance(one: Concepts, two: Concepts) -> float:
    return max(float((one.words[name] - two.words[name]).abs().max()) for name in two.classes)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("vectors", [1, 3])
def test_words_reach_the_closed_form(flips: bool, vectors: int) -> None:
    model, photos = LinearDenoiser(), pictures(COUNTS, flips=flips)
    learned = learn(photos, model, recipe=replace(TOY, vectors=vectors), progress=False)
    for name in COUNTS:
        shots = latents_of(photos, name)
        best = model.best(torch.cat([shots, shots.flip(-1)]) if flips else shots)
        # The linear model reads the mean of a word's vectors. What is left is the noise of the flips.
        torch.testing.assert_close(learned.words[name].mean(0), best, rtol=0, atol=0.05 if flips else 2e-3)
        assert learned.words[name].shape == (vectors, len(best))


def test_a_recipe_without_flips_mirrors_nothing() -> None:
    photos = pictures(COUNTS, flips=True)
    for recipe, allowed, ways in ((TOY, True, 2), (replace(TOY, flips=False), True, 1), (TOY, False, 1)):
        given = ImageSet.of(photos, classes=photos.classes, flips=allowed)
        shots = encode_shots(given, LinearDenoiser(), recipe, Bar(False))
        assert [tuple(latents.shape[:2]) for latents in shots.latents] == [(count, ways) for count in COUNTS.values()]
        if ways == 2:
            assert all(torch.equal(latents[:, 1], latents[:, 0].flip(-1)) for latents in shots.latents)


def test_together_as_alone(stable: Denoiser) -> None:
    photos = pictures(COUNTS, side=16, flips=True)
    together = learn(photos, stable, recipe=STABLE, progress=False)
    for name in COUNTS:
        alone = learn(one_class(photos, name), stable, recipe=STABLE, progress=False)
        assert distance(together, alone) < 1e-4
        moved = together.words[name] - stable.word_vectors("the")  # type: ignore[operator]
        assert float(moved.abs().max()) > 0.1


def test_any_batch_and_any_order_of_photos(stable: Denoiser) -> None:
    photos, recipe = pictures(COUNTS, side=16), replace(STABLE, steps=3)
    whole = learn(photos, stable, recipe=recipe, progress=False)
    for batch in (1, 7, 32):
        assert distance(learn(photos, stable, recipe=recipe, batch=batch, progress=False), whole) < 1e-4
    turned = learn(photos.subset(list(reversed(range(len(photos))))), stable, recipe=recipe, progress=False)
    assert turned.hash == whole.hash
    assert learn(photos, stable, recipe=recipe, seed=1, progress=False).hash != whole.hash


def test_only_the_new_rows_change(stable: Denoiser) -> None:
    stable.unet.requires_grad_(True)  # type: ignore[union-attr]
    stable.unet.train()  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in stable.state_dict().items()}
    asking = {name: parameter.requires_grad for name, parameter in stable.named_parameters()}
    modes = [module.training for module in stable.modules()]
    learned = learn(pictures(COUNTS, side=16), stable, recipe=STABLE, progress=False)
    after = stable.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in stable.parameters())
    assert {name: parameter.requires_grad for name, parameter in stable.named_parameters()} == asking
    assert [module.training for module in stable.modules()] == modes
    assert not any(vectors.requires_grad for vectors in learned.words.values())


def held_out_loss(model: Denoiser, words: Concepts, name: str, photos: ImageSet) -> float:
    """On times, noise and templates that learning did not see."""
    generator = torch.Generator().manual_seed(99)
    latents = model.encode(torch.stack(list(one_class(photos, name).fitted(16))))
    x0 = latents[torch.randint(len(latents), (96,), generator=generator)]
    prompts = [TEMPLATES[place % 27].format(words.placeholder(name)) for place in range(96)]
    with torch.no_grad():
        t, noise = torch.arange(96) * 1000 // 96, torch.randn(x0.shape, generator=generator)
        return float(model.loss(x0, t, noise, model.embed(prompts, words.vectors())).mean())


def test_a_learned_word_explains_its_class_better_than_the_start(stable: Denoiser) -> None:
    photos = pictures(COUNTS, side=16)
    recipe = replace(STABLE, steps=30, learning_rate=0.1, times="stratified")
    learned = learn(photos, stable, recipe=recipe, progress=False)
    start = Concepts(words={name: stable.word_vectors("the").expand(2, -1) for name in COUNTS})  # type: ignore[operator]
    for name in COUNTS:
        assert held_out_loss(stable, learned, name, photos) < held_out_loss(stable, start, name, photos) - 1e-3


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


def test_settings_say_how_the_words_came_to_be(stable: Denoiser) -> None:
    learned = learn(pictures(COUNTS, side=16), stable, recipe=replace(STABLE, steps=1), seed=5, progress=False)
    settings = dict(learned.settings)
    assert json.loads(json.dumps(settings)) == settings
    assert stable.spec is not None
    assert settings["model"]["weights_hash"] == stable.spec.weights_hash
    assert (settings["seed"], settings["samples_per_class"], settings["recipe"]["name"]) == (5, 3, "custom")
    assert settings["starts"]["dog"] == {"word": "the", "loss": None, "calls": 0}
    assert settings["photos"]["count"] == 6


def test_names_that_collide_are_learned_apart_and_said_so() -> None:
    photos = pictures({"Crane": 1, "crane": 1, "owl": 1})
    with pytest.warns(UserWarning, match="is learned as") as said:
        learned = learn(photos, LinearDenoiser(), recipe=replace(TOY, steps=5), progress=False)
    assert len(said) == 2
    assert learned.placeholder("owl") == "<owl>"
    assert len({token.lower() for token in learned.vectors()}) == 3
    assert not torch.equal(learned.words["Crane"], learned.words["crane"])


def unlabelled() -> ImageSet:
    return ImageSet.of([Example(id="a", image=picture(0), label=None)], classes=("cat",))


@pytest.mark.parametrize(
    ("photos", "options", "error", "message"),
    [
        (unlabelled(), {}, DataError, "without a label"),
        (pictures({"cat": 1, "dog's ear": 0, "owl": 1}), {}, DataError, "dog's ear"),
        (pictures({"cat": 1, " ": 1}), {}, DataError, "blanks"),
        (pictures(COUNTS), {"recipe": "best"}, ConfigError, "fast"),
        (pictures(COUNTS), {"recipe": replace(TOY, start="nearest")}, ConfigError, "known words"),
        (pictures(COUNTS), {"batch": 0}, ConfigError, "batch"),
    ],
)
def test_bad_input_is_refused_before_any_work(photos: ImageSet, options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = LinearDenoiser()
    with pytest.raises(error, match=message):
        learn(photos, model, progress=False, **options)
    assert model.calls == 0


def test_a_model_without_prompts_is_refused() -> None:
    schedule = LinearDenoiser().schedule
    oracle = GaussianMixtureDenoiser(torch.zeros(1, 3, 8, 8), torch.ones(1), torch.ones(1), schedule)
    with pytest.raises(ConfigError, match="takes no prompts"):
        learn(pictures(COUNTS), oracle, progress=False)


def test_a_loss_that_is_not_finite_stops_the_learning() -> None:
    model = LinearDenoiser()
    model.basis.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match="not finite at step 0"):
        learn(pictures(COUNTS), model, recipe=TOY, progress=False)


def test_one_class_and_one_photo() -> None:
    assert learn(pictures({"cat": 1}), LinearDenoiser(), recipe=replace(TOY, steps=2), progress=False).classes == ("cat",)


def test_the_bar_waits_and_goes_to_the_standard_error_stream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    photos, recipe = pictures(COUNTS), replace(TOY, steps=5)
    learn(photos, LinearDenoiser(), recipe=recipe, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("rediffuse.progress.AFTER", 0.0)
    learn(photos, LinearDenoiser(), recipe=recipe, progress=False)
    assert capsys.readouterr() == ("", "")
    learn(photos, LinearDenoiser(), recipe=recipe, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "learning 3 words" in err
    assert "samples, " in err
    assert "/s, " in err


@pytest.mark.parametrize(("device", "batches"), [("cuda", [256, 64, 16, 7, 1]), ("cpu", [256, 64, 4, 1, 1]), ("mps", [256, 64, 4, 1, 1])])
def test_batches_shrink_with_the_area(device: str, batches: list[int]) -> None:
    assert [default_batch((4, side, side), torch.device(device)) for side in (16, 32, 64, 96, 512)] == batches


class Narrow(StableDenoiser):
    """Runs out of memory beyond so many samples in a call with gradients."""

    holds = 4
    after = 0
    """Calls before memory becomes scarce."""
    sizes: ClassVar[list[int]] = []

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        losses = super().loss(x0, t, noise, condition)  # the activations are there when memory runs out
        self.sizes.append(len(x0))
        if len(x0) > self.holds and len(self.sizes) > self.after:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return losses


@pytest.fixture
def narrow(stable_folder: Path) -> Narrow:
    model = load(stable_folder, device="cpu", dtype="float32")
    model.__class__ = Narrow
    assert isinstance(model, Narrow)
    model.sizes.clear()
    return model


@pytest.mark.parametrize("after", [0, 4])  # at the first call; in the middle of the second step
def test_memory_that_runs_out_halves_the_calls_and_changes_no_word(
    stable: Denoiser, narrow: Narrow, after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, recipe = pictures(COUNTS, side=16, flips=True), replace(STABLE, steps=4)
    whole = learn(photos, stable, recipe=recipe, batch=3, progress=False)
    narrow.holds, narrow.after = 1, after
    learned = learn(photos, narrow, recipe=recipe, batch=3, progress=False)
    assert distance(learned, whole) < 1e-4
    done = [3] * after
    assert narrow.sizes == [*done, 3, *[1] * (4 * 9 - sum(done))]
    assert capsys.readouterr().err == ""
    narrow.sizes.clear()
    narrow.holds, narrow.after = 2, 0
    learn(photos, narrow, recipe=recipe, batch=12, progress=True)
    assert narrow.sizes[:7] == [9, 3, 2, 2, 2, 2, 1]  # 9 go as 3 of 3 where 4 fit
    assert [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line] == [
        f"out of memory: words are learned on with {slots} samples a call; they agree within rounding" for slots in (4, 2)
    ]


def test_not_even_one_sample(narrow: Narrow, stable: Denoiser, tmp_path: Path) -> None:
    photos, recipe, file = pictures({"cat": 1}, side=16), replace(STABLE, steps=27, batch_per_class=1), tmp_path / "state.safetensors"
    narrow.holds = 0
    with pytest.raises(ModelError, match=r"\(--batch 1\) fits, of 4x8x8 numbers.*; no step was kept\. Use a smaller model"):
        learn(photos, narrow, recipe=recipe, progress=False, checkpoint=file)
    narrow.after = len(narrow.sizes) + 26
    with pytest.raises(ModelError, match=r"25 of 27 steps are kept in .*state\.safetensors"):
        learn(photos, narrow, recipe=recipe, progress=False, checkpoint=file)
    ended = learn(photos, stable, recipe=recipe, batch=1, progress=False, checkpoint=file)  # another batch may go on
    assert distance(ended, learn(photos, stable, recipe=recipe, progress=False)) < 1e-4
