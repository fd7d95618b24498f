"""How words are learned, as settings: the two recipes of DA-Fusion, and a short one.

Learning rates are the effective ones: the published scripts multiply theirs by the batch (5e-4 x 4 and 5e-4 x 8).

`paper_agnostic` and `paper_full` keep the published numbers. They depart from the published program in this:
- A photo's latent is the mean of the encoder's posterior, not a sample of it, and is computed once.
- Photos are made smaller by a Lanczos filter, not a bicubic one (larger by a bicubic one in both).
- A class's photos come in shuffled epochs from a stream of its own; its word is the same whichever classes are learned beside it.
- Numbers are those of the loaded model (`--dtype`), not fp16 with a float32 text encoder.
- `paper_full` takes names of several tokens, whose mean fills every vector; the published trainer refuses them.
- Photos are not mirrored where the set says that a flip changes the label.

Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944, and its released scripts; Gal et al., ICLR 2023, arXiv 2208.01618.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rediffuse.concepts.prompts import TEMPLATES, check_templates
from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InversionRecipe:
    """Settings of textual inversion.

    Args:
        steps: updates of every word.
        batch_per_class: samples of each class in an update; a class sees steps x batch_per_class of them in all.
        learning_rate: of AdamW, effective.
        vectors: tokens that a word consists of.
        start: `name` (the class's own name), `nearest` (the word that the model knows and under which it explains this class's photos best:
            it must list its known words), `auto` (nearest where the model lists known words, else `the`), or any word or phrase, such as
            `the`. Where no class name may reach the model take `the`: the nearest word can be the name itself.
        start_rows: how the tokens of a start of several fill the vectors: `mean` of all in each, or the `tokens` in their order.
        decay: of the learning rate over the steps.
        times: noise times within a sub-batch: independent (`uniform`), or one from each of its equal ranges (`stratified`: less noise in
            the gradient, the same mean).
        templates: prompts to learn with, each with one `{}`; drawn evenly.
        flips: half of the photos are mirrored, where the set says that a flip keeps the label.
        fit: how photos become the model's square (`pad`, `crop`, `squash`).
        betas, epsilon, weight_decay: of AdamW.
    """

    steps: int
    batch_per_class: int
    learning_rate: float
    vectors: int = 1
    start: str = "auto"
    start_rows: Literal["mean", "tokens"] = "mean"
    decay: Literal["constant", "cosine"] = "constant"
    times: Literal["uniform", "stratified"] = "uniform"
    templates: tuple[str, ...] = TEMPLATES
    flips: bool = True
    fit: Literal["pad", "crop", "squash"] = "pad"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("steps", "batch_per_class", "vectors"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not self.learning_rate > 0 or self.weight_decay < 0 or not self.epsilon > 0:
            raise ConfigError(
                "learning_rate and epsilon must be above 0 and weight_decay not below, "
                f"got {self.learning_rate}, {self.epsilon} and {self.weight_decay}"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if not self.start.strip():
            raise ConfigError("start must be a word, 'name', 'nearest' or 'auto', got blanks; 'the' is the neutral one")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        object.__setattr__(self, "templates", check_templates(self.templates))

    @property
    def samples_per_class(self) -> int:
        """Training samples that one word costs."""
        return self.steps * self.batch_per_class

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        from math import cos, pi

        return self.learning_rate if self.decay == "constant" else self.learning_rate * (1 + cos(pi * step / self.steps)) / 2

    def with_samples(self, samples_per_class: int) -> InversionRecipe:
        """The same recipe with as many steps as this many samples a class allow."""
        return replace(self, steps=max(1, samples_per_class // self.batch_per_class))

    def to_settings(self) -> dict[str, Any]:
        """JSON."""
        fields = asdict(self)
        return {**fields, "templates": list(self.templates), "betas": list(self.betas)}


_CHOICES: dict[str, tuple[str, ...]] = {
    "start_rows": ("mean", "tokens"),
    "decay": ("constant", "cosine"),
    "times": ("uniform", "stratified"),
    "fit": ("pad", "crop", "squash"),
}

RECIPES: Mapping[str, InversionRecipe] = {
    # 200 samples a class: ten classes in 2,000. To choose the start among 332 known words costs a class about 500 forwards, as much time as
    # the learning. From 100 to 400 samples the share of copies that are recognised stays the same (results/learning_budget.json).
    "fast": InversionRecipe(
        steps=50,
        batch_per_class=4,
        learning_rate=5e-3,
        vectors=2,
        start="auto",
        start_rows="tokens",
        decay="cosine",
        times="stratified",
        weight_decay=0.0,
    ),
    # Recipe A: the released scripts. No class name reaches the model.
    "paper_agnostic": InversionRecipe(steps=1000, batch_per_class=4, learning_rate=2e-3, start="the", fit="squash"),
    # Recipe B: what the ICLR figures were made with, according to their author.
    "paper_full": InversionRecipe(steps=2000, batch_per_class=8, learning_rate=4e-3, vectors=4, start="name", fit="squash"),
}


def find_recipe(recipe: str | InversionRecipe) -> InversionRecipe:
    """A recipe by its name, or as it came."""
    if isinstance(recipe, InversionRecipe):
        return recipe
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(f"no recipe {recipe!r} for learning words; there are {', '.join(RECIPES)}, or give an InversionRecipe")
    return RECIPES[recipe]
