"""Where the learning of a word begins.

Reference for the nearest word: the text under which a denoiser errs least names the picture (Li et al., ICCV 2023, arXiv 2303.16203,
diffusion classifier: the same noise for all texts, poor ones dropped early).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from rediffuse.concepts.choosing import Choice, KeptChoice
from rediffuse.concepts.draws import seeded
from rediffuse.concepts.prompts import GENERATION_TEMPLATE, as_words, fill
from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.concepts.shots import Shots, in_chunks
from rediffuse.denoisers.base import Condition, Denoiser
from rediffuse.errors import ConfigError
from rediffuse.progress import Bar

GOALS = (1, 4, 16)
"""Looks at photos that a candidate has had after each round; 8 candidates or an eighth of all go on to the second, 3 to the third."""
_NOISE_SHARES = (0.35, 0.95)  # of the schedule: below, the picture itself says all; above, nothing does


class Words(Protocol):
    """What a text-to-image denoiser says of its vocabulary."""

    @property
    def known_words(self) -> tuple[str, ...]: ...
    def word_vectors(self, text: str) -> Tensor:
        """(k, D) token embeddings of a text, without the ends."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Start:
    """rows: (k, D) float32 on the CPU; word: the text they come from; loss: under it, if chosen by it; calls: samples the choice cost."""

    rows: Tensor
    word: str
    loss: float | None = None
    calls: int = 0

    def to_settings(self) -> dict[str, Any]:
        return {"word": self.word, "loss": self.loss, "calls": self.calls}


def choose_starts(
    model: Denoiser, recipe: InversionRecipe, shots: Shots, *, seed: int, batch: int, bar: Bar, kept: KeptChoice | None = None
) -> list[Start]:
    """A start for each class, as the recipe says. kept: where a search goes on from, and is kept.

    Raises:
        ConfigError: a start that has no tokens.
    """
    words = cast(Words, model)
    check_start(model, recipe)
    if known := candidates_of(model, recipe):
        candidates = [Start(rows=start_rows(words, word, recipe), word=word) for word in known]
        return nearest(model, candidates, shots, seed=seed, batch=batch, bar=bar, kept=kept)
    if recipe.start == "name":
        return [Start(rows=start_rows(words, as_words(name), recipe), word=name) for name in shots.names]
    word = "the" if recipe.start == "auto" else recipe.start
    return [Start(rows=start_rows(words, word, recipe), word=word)] * len(shots.names)


def check_start(model: Denoiser, recipe: InversionRecipe) -> None:
    """Raise ConfigError if the recipe asks for the nearest known word of a model that lists none."""
    if recipe.start == "nearest" and not candidates_of(model, recipe):
        raise ConfigError(
            "start 'nearest' needs a model that lists its known words (known_words.json), this one has none; use 'the' or 'name'"
        )


def search_calls(model: Denoiser, recipe: InversionRecipe) -> int:
    """Denoiser calls of one sample, without gradient, that choosing the start costs each class; 0 where nothing is searched."""
    return _calls(len(candidates_of(model, recipe)))


def _calls(alive: int, turns: int = len(GOALS)) -> int:
    """Of one class with so many candidates, in so many rounds."""
    calls, done = 0, 0
    for goal, keep in _rounds(alive)[:turns]:
        calls, alive, done = calls + alive * (goal - done), min(alive, keep), goal
    return calls


def candidates_of(model: Denoiser, recipe: InversionRecipe) -> tuple[str, ...]:
    """The known words among which the recipe looks for the nearest; none where its start is another."""
    return tuple(dict.fromkeys(getattr(model, "known_words", ()))) if recipe.start in ("nearest", "auto") else ()


def _rounds(candidates: int) -> tuple[tuple[int, int], ...]:
    """(looks that a candidate has had after the round, how many go on)."""
    return tuple(zip(GOALS, (max(8, -(candidates // -8)), 3, 1), strict=True))


def start_rows(model: Words, text: str, recipe: InversionRecipe) -> Tensor:
    """(vectors, D) from the tokens of a text: the mean of all in every row, or equal shares of them in their order."""
    tokens = model.word_vectors(text).detach().float().cpu()  # (m, D)
    count = len(tokens)
    if not count:
        raise ConfigError(f"the start {text!r} has no tokens for this model; start from 'the'")
    if recipe.start_rows == "mean":
        return tokens.mean(0).expand(recipe.vectors, -1).clone()
    shares = [(row * count // recipe.vectors, -((row + 1) * count // -recipe.vectors)) for row in range(recipe.vectors)]
    return torch.stack([tokens[first:end].mean(0) for first, end in shares])


@torch.no_grad()
def nearest(
    model: Denoiser, candidates: Sequence[Start], shots: Shots, *, seed: int, batch: int, bar: Bar, kept: KeptChoice | None = None
) -> list[Start]:
    """For each class the candidate under which the model errs least on the class's own photos.

    All candidates of a class see the same photos, times and noise, so that their differences are what is compared. Of W candidates, all
    have one look, an eighth (8 at least) three more, and the best 3 twelve more: 1.6 W samples for 170 words. Samples of all classes share
    full batches; what a class gets does not depend on the others.
    """
    condition = _conditions(model, candidates, batch)
    looks = [_Looks(shots, place, seed, len(model.schedule)) for place in range(len(shots.names))]
    choice = (None if kept is None else kept.load()) or Choice.begin(len(shots.names), len(candidates))
    rounds = _rounds(len(candidates))
    bar.stage("choosing the words to start from", len(shots.names) * _calls(len(candidates)), sum(choice.calls))
    try:
        for _, keep in rounds[choice.turn :]:
            for chunk in in_chunks(_left(choice, rounds), batch):
                choice = choice.after(chunk, _losses(model, condition, looks, chunk))
                bar.advance(len(chunk))
                if kept is not None:
                    kept.note(choice)
            choice = choice.next_round(keep)
    finally:
        if kept is not None:
            kept.save(choice)
    chosen = [(place, group[0]) for place, group in enumerate(choice.alive)]
    return [
        Start(
            rows=candidates[who].rows,
            word=candidates[who].word,
            loss=float(choice.sums[place, who]) / rounds[-1][0],
            calls=choice.calls[place],
        )
        for place, who in chosen
    ]


def _left(choice: Choice, rounds: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Samples that the round under way still wants, (class, candidate, look); of each class in the same order, whichever are done."""
    before = (0, *(goal for goal, _ in rounds))
    todo = []
    for place, (group, calls) in enumerate(zip(choice.alive, choice.calls, strict=True)):
        asked = [(place, who, look) for look in range(before[choice.turn], rounds[choice.turn][0]) for who in group]
        todo += asked[calls - _calls(choice.sums.shape[1], choice.turn) :]
    return todo


class _Looks:
    """What is shown of one class: the photo, time and noise of look 0, 1, 2, ..."""

    def __init__(self, shots: Shots, place: int, seed: int, levels: int) -> None:
        generator = seeded("nearest", seed, shots.names[place])
        latents = shots.latents[place]
        order = torch.randperm(len(latents), generator=generator)
        self.x0 = latents[order[torch.arange(GOALS[-1]) % len(latents)], 0]
        self.noise = torch.randn(self.x0.shape, generator=generator)
        low, high = _NOISE_SHARES
        # Steps of the golden ratio fill the range evenly however many are taken; the first look is at its middle.
        shares = low + (high - low) * ((0.5 + torch.arange(GOALS[-1]) * 0.618034) % 1)
        self.t = (shares * levels).long()


def _conditions(model: Denoiser, candidates: Sequence[Start], batch: int) -> Condition:
    parts = []
    for chunk in in_chunks(enumerate(candidates), batch):
        words = {f"<candidate-{place}>": start.rows.to(model.device) for place, start in chunk}
        parts.append(model.embed([fill(GENERATION_TEMPLATE, token) for token in words], words))
    return Condition.cat(parts)


def _losses(model: Denoiser, condition: Condition, looks: Sequence[_Looks], chunk: Sequence[tuple[int, int, int]]) -> list[float]:
    shown = [(looks[place], look) for place, _, look in chunk]
    x0, noise, t = (torch.stack([getattr(own, name)[look] for own, look in shown]).to(model.device) for name in ("x0", "noise", "t"))
    losses: list[float] = model.loss(x0, t, noise, condition.index([who for _, who, _ in chunk])).cpu().double().tolist()
    return losses
