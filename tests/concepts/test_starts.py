from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.concepts.toy import WIDTH, LinearDenoiser, pictures

from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.concepts.shots import Shots, encode_shots
from rediffuse.concepts.starts import GOALS, Start, choose_starts, search_calls, start_rows
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError
from rediffuse.progress import Bar

RECIPE = InversionRecipe(steps=1, batch_per_class=1, learning_rate=0.1, start="nearest")
COUNTS = {"cat": 3, "dog": 1, "red bird": 5}


def toy(extra: int = 200) -> tuple[LinearDenoiser, Shots]:
    """A model that knows the best word of each class ("cat!"), and many others."""
    model = LinearDenoiser()
    shots = encode_shots(pictures(COUNTS), model, RECIPE, Bar(False))
    generator = torch.Generator().manual_seed(1)
    vocabulary = {f"w{number}": 3 * torch.randn(1, WIDTH, generator=generator) for number in range(extra)}
    for name, latents in zip(shots.names, shots.latents, strict=True):
        vocabulary[f"{name.split()[-1]}!"] = (latents[:, 0].mean(0).flatten() @ model.basis.detach()).view(1, -1)
    return LinearDenoiser(vocabulary, known_words=tuple(vocabulary)), shots


def choose(model: Denoiser, recipe: InversionRecipe, shots: Shots, batch: int = 32) -> list[Start]:
    return choose_starts(model, recipe, shots, seed=0, batch=batch, bar=Bar(False))


@pytest.mark.parametrize("start", ["nearest", "auto"])
def test_the_nearest_word_is_the_one_that_fits_the_photos(start: str) -> None:
    model, shots = toy()
    found = choose(model, replace(RECIPE, start=start, vectors=2), shots)
    assert [chosen.word for chosen in found] == ["cat!", "dog!", "bird!"]
    for chosen in found:
        assert torch.equal(chosen.rows, model.vocabulary[chosen.word].expand(2, -1))
        assert chosen.loss is not None


def test_the_search_is_cheap_and_counts_what_it_costs() -> None:
    model, shots = toy()
    found = choose(model, RECIPE, shots)
    words = len(model.known_words)  # 203: all once, 26 three times more, 3 twelve times more
    assert [chosen.calls for chosen in found] == [words + 26 * (GOALS[1] - 1) + 3 * (GOALS[2] - GOALS[1])] * 3
    assert model.calls == sum(chosen.calls for chosen in found) < 2 * words * 3


def test_the_bar_counts_all_rounds_as_the_price_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model, shots = toy()
    stages, done = [], []
    monkeypatch.setattr(Bar, "stage", lambda self, title, total=0, done=0: stages.append(total))
    monkeypatch.setattr(Bar, "advance", lambda self, pieces: done.append(pieces))
    choose(model, RECIPE, shots)
    assert stages == [sum(done)] == [3 * search_calls(model, RECIPE)]


@pytest.mark.parametrize("extra", [0, 1, 9, 200])
def test_the_price_of_a_search_is_what_it_then_costs(extra: int) -> None:
    model, shots = toy(extra)
    found = choose(model, RECIPE, shots)
    assert [chosen.word for chosen in found] == ["cat!", "dog!", "bird!"]
    for start in ("nearest", "auto"):
        assert [chosen.calls for chosen in found] == [search_calls(model, replace(RECIPE, start=start))] * 3
    for start in ("the", "name"):
        assert search_calls(model, replace(RECIPE, start=start)) == 0
    assert search_calls(LinearDenoiser(), replace(RECIPE, start="auto")) == 0


def test_a_class_finds_the_same_word_alone_and_in_any_batch(stable: Denoiser) -> None:
    stable.known_words = ("cat", "dog", "red bird", "thing", "the", "one", "two")  # type: ignore[assignment]
    photos = pictures(COUNTS, side=16)
    shots = encode_shots(photos, stable, RECIPE, Bar(False))
    together = choose(stable, RECIPE, shots)
    for place, name in enumerate(shots.names):
        alone = Shots(names=(name,), latents=(shots.latents[place],))
        (found,) = choose(stable, RECIPE, alone, batch=7)
        assert found.word == together[place].word
        assert found.loss == pytest.approx(together[place].loss, rel=1e-5)


def test_a_word_a_name_or_none(stable: Denoiser) -> None:
    shots = encode_shots(pictures(COUNTS, side=16), stable, RECIPE, Bar(False))
    vectors = stable.word_vectors  # type: ignore[operator]
    for start in ("the", "auto"):  # no known words: the neutral one
        assert [chosen.word for chosen in choose(stable, replace(RECIPE, start=start), shots)] == ["the"] * 3
    by_name = choose(stable, replace(RECIPE, start="name", vectors=4), shots)
    assert [chosen.word for chosen in by_name] == list(COUNTS)
    assert len(vectors("red bird")) == 2
    torch.testing.assert_close(by_name[2].rows, vectors("red bird").mean(0).expand(4, -1))
    with pytest.raises(ConfigError, match="known words"):
        choose(stable, RECIPE, shots)


def test_rows_from_the_tokens_of_a_start() -> None:
    tokens = torch.eye(3, WIDTH)
    model = LinearDenoiser({"a": tokens[:1], "b": tokens[1:2], "c": tokens[2:]})
    shared = replace(RECIPE, start_rows="tokens")
    assert torch.equal(start_rows(model, "a b", replace(shared, vectors=2)), tokens[:2])
    assert torch.equal(start_rows(model, "a", replace(shared, vectors=3)), tokens[:1].expand(3, -1))
    assert torch.equal(start_rows(model, "a b c", replace(shared, vectors=2)), torch.stack([tokens[:2].mean(0), tokens[1:].mean(0)]))
    assert torch.equal(start_rows(model, "a b", replace(shared, vectors=4)), tokens[[0, 0, 1, 1]])
    for recipe in (shared, RECIPE):
        assert torch.equal(start_rows(model, "a b c", recipe), tokens.mean(0, keepdim=True))
