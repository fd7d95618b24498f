"""Learning against a closed form on the linear model, and its promises on a real, tiny Stable Diffusion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.concepts.toy import COUNTS, TOY, LinearDenoiser, distance, picture, pictures
from torch import Tensor

from rediffuse.concepts.concepts import Concepts
from rediffuse.concepts.prompts import TEMPLATES
from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.concepts.shots import encode_shots
from rediffuse.concepts.textual_inversion import default_batch, learn
from rediffuse.data.types import Example, ImageSet
from rediffuse.denoisers.base import Condition, Denoiser
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.load import load
from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.progress import Bar

STABLE = InversionRecipe(steps=12, batch_per_class=3, learning_rate=0.05, start="the", vectors=2)


def one_class(photos: ImageSet, name: str) -> ImageSet:
    label = photos.classes.index(name)
    mine = [replace(example, label=0) for example in photos if example.label == label]
    return ImageSet.of(mine, classes=(name,), flips=photos.flips)


def latents_of(photos: ImageSet, name: str) -> Tensor:
    return torch.stack(list(one_class(photos, name).fitted(8)))


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
