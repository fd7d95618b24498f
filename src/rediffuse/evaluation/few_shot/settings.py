"""What a comparison asks: which arms, shots, seeds and levels, and how every arm is made. A cell is one classifier of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from rediffuse.concepts.recipes import InversionRecipe, find_recipe
from rediffuse.data.geometry import FIT_MODES
from rediffuse.errors import ConfigError
from rediffuse.methods.editing import check_strengths
from rediffuse.training.backbones import SCRATCH, parse_level
from rediffuse.training.settings import LINEAR, WHOLE, TrainSettings

PIXELS, STANDARD, REAL_GUIDANCE, DA_FUSION = "pixels", "standard", "real-guidance", "da-fusion"
SHOTS = (1, 2, 4, 8)
ARMS = (PIXELS, STANDARD, REAL_GUIDANCE, DA_FUSION)
"""In the order in which pages show them."""
GENERATED = (REAL_GUIDANCE, DA_FUSION)
AUTO_ALPHAS = (0.0, 0.25, 0.5, 0.75)
"""What `alpha="auto"` chooses among, by cross-validation on the shots."""


@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """One classifier: what it knew, what it was trained on, how many shots, which seed.

    The arm "pixels" (logistic regression on raw pixels) knows nothing; its level is "pixels" too.
    """

    level: str
    arm: str
    shots: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Making:
    """How copies are made, the same sampler for every arm that makes any.

    Args:
        copies: of each photo.
        guidance_scale: of classifier-free guidance.
        solver, steps: the sampling schedule at strength 1.
        strengths, law: of DA-Fusion.
        recipe: by which DA-Fusion's words are learned: a name or an InversionRecipe.
        guidance_strength: Real Guidance's strength.
        guidance_prompt: Real Guidance's prompt: "name", "photo", or a text with {}.
        batch: images, or samples of learning, in a denoiser call; None is what memory is likely to hold.
    """

    copies: int = 10
    guidance_scale: float = 4.0
    solver: Literal["ddim", "dpm++2m", "pndm", "ancestral"] = "dpm++2m"
    steps: int = 12
    strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    law: Literal["stratified", "iid", "fixed"] = "stratified"
    recipe: str | InversionRecipe = "fast"
    guidance_strength: float = 0.5
    guidance_prompt: str = "name"
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ConfigError(f"copies must be at least 1, got {self.copies}")
        find_recipe(self.recipe)
        check_strengths((*self.strengths, self.guidance_strength))


def level_key(level: str) -> str:
    """How a level is called in headline keys: resnet-64 is resnet64."""
    return "".join(letter for letter in level.lower() if letter.isalnum() or letter == "_")


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """All that decides what a comparison finds, beside the images and the model.

    Args:
        shots: images a class, each at least 1.
        seeds: each fixes shots, words, copies and the start of the classifier for every arm.
        arms: of `ARMS`; "standard" is what the others are compared with.
        levels: what classifiers know at the start: (name, where the weights lie); `parse_level` makes one from text.
        alpha: probability of a copy, or "auto": chosen from `AUTO_ALPHAS` by cross-validation on the shots (at 1 shot: .5).
        making: how copies are made.
        size: side in pixels at which pictures are held.
        fit: how other shapes become that square.
        linear, whole: training budgets; equal for all arms.
    """

    shots: tuple[int, ...] = SHOTS
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    arms: tuple[str, ...] = (STANDARD, REAL_GUIDANCE, DA_FUSION)
    levels: tuple[tuple[str, str], ...] = ((SCRATCH, SCRATCH), ("resnet-64", "resnet-64"))
    alpha: float | Literal["auto"] = 0.5
    making: Making = field(default_factory=Making)
    size: int = 64
    fit: Literal["pad", "crop", "squash"] = "pad"
    linear: TrainSettings = LINEAR
    whole: TrainSettings = WHOLE

    def __post_init__(self) -> None:
        for name in ("shots", "seeds", "arms", "levels"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{name} must hold at least one value and none twice, got {', '.join(map(str, values)) or 'nothing'}")
        if min(self.shots) < 1:
            raise ConfigError(f"shots must be at least 1, got {min(self.shots)}")
        if min(self.seeds) < 0:
            raise ConfigError(f"seeds must be at least 0, got {min(self.seeds)}")
        if self.size < 1:
            raise ConfigError(f"size must be at least 1 pixel, got {self.size}")
        if self.fit not in FIT_MODES:
            raise ConfigError(f"fit must be one of {', '.join(FIT_MODES)}, since pictures are generated so too, got {self.fit!r}")
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown:
            raise ConfigError(f"no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
        names = [name for name, _ in self.levels]
        if len(set(names)) != len(names) or PIXELS in names:
            raise ConfigError(f"levels must have names of their own, other than {PIXELS!r}, got {', '.join(names)}")
        keys = [level_key(name) for name in names]
        if len(set(keys)) != len(keys) or "" in keys:
            raise ConfigError(f"levels must differ in letters and digits, by which results call them, got {', '.join(names)}")
        if self.alpha != "auto" and not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is the probability of a copy and must be in [0, 1], or auto, got {self.alpha}")

    def cells(self) -> Iterator[Cell]:
        """Every cell, seed by seed, so that an early end leaves whole seeds; fewer shots and cheaper arms first."""
        for seed in self.seeds:
            for shots in sorted(self.shots):
                for arm in (arm for arm in ARMS if arm in self.arms):
                    for level in [PIXELS] if arm == PIXELS else [name for name, _ in self.levels]:
                        yield Cell(level=level, arm=arm, shots=shots, seed=seed)

    def budget(self, level: str) -> TrainSettings:
        """How long a classifier of a level learns."""
        return self.whole if dict(self.levels)[level] == SCRATCH else self.linear

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def make_settings(
    *,
    shots: Sequence[int],
    seeds: int | Sequence[int],
    arms: Sequence[str],
    levels: Sequence[str],
    steps: int | None = None,
    **others: Any,
) -> CompareSettings:
    """Settings from what people type: a number of seeds, levels as text, the steps of the whole-network training."""
    if isinstance(seeds, int) and seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    pairs = tuple(parse_level(level) for level in levels)
    whole = WHOLE if steps is None else replace(WHOLE, steps=steps)
    return CompareSettings(shots=tuple(shots), seeds=chosen, arms=tuple(arms), levels=pairs, whole=whole, **others)
