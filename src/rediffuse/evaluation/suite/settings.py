"""What a suite asks, and of how many images: cheap parts of all, dear ones of a fixed choice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from rediffuse.errors import ConfigError
from rediffuse.evaluation.adversarial import Attack, Norm
from rediffuse.evaluation.certify.smoothing import Smoothing
from rediffuse.evaluation.corruptions.constants import SMALLEST
from rediffuse.evaluation.test_time.dda import DDASettings
from rediffuse.evaluation.test_time.diffaug import DiffAugSettings

Suite = Literal["few-shot", "robust", "full"]
ACCURACY, CALIBRATION, CORRUPTIONS, UNKNOWN, ENTROPY = "accuracy", "calibration", "corruptions", "unknown inputs", "entropy"
ENSEMBLE, CERTIFICATES, ATTACK, ADAPTED = "DiffAug ensemble", "certificates", "attack", "DDA"
FEW_SHOT = (ACCURACY, CALIBRATION)
ROBUST = (*FEW_SHOT, CORRUPTIONS, UNKNOWN, ENTROPY, ENSEMBLE)
PARTS: Mapping[Suite, tuple[str, ...]] = {"few-shot": FEW_SHOT, "robust": ROBUST, "full": (*ROBUST, CERTIFICATES, ATTACK, ADAPTED)}
"""The parts of each suite, in the order in which they run."""
NEEDS_DENOISER = (ENTROPY, ENSEMBLE, CERTIFICATES, ADAPTED)
_RADII: Mapping[int, Mapping[Norm, float]] = {32: {"linf": 8 / 255, "l2": 0.5}, 224: {"linf": 4 / 255, "l2": 3.0}}
"""Of attacks, by side: on CIFAR-10 (Croce et al., 2021, arXiv 2010.09670) and on ImageNet (Salman et al., 2020, arXiv 2007.08489)."""


@dataclass(frozen=True, kw_only=True)
class SuiteSettings:
    """What is asked, and of how many images. Nothing in it depends on what is found.

    Args:
        suite: few-shot: accuracy and calibration. robust: also corruptions, unknown inputs, entropy, the DiffAug ensemble. full: also
            certificates, an attack, DDA.
        size: side in pixels of the square that every image becomes. fit: how other shapes become it.
        seed: of the choice of images and of all noise.
        ensemble_images, entropy_images, certified_images, attacked_images, adapted_images: how many images those parts see, at most; a
            seeded choice by pixels, whatever their order.
        severities: of corruptions for the ensembles; the papers report 5.
        smoothing: of certificates; its seed gives way to `seed`, as do those of the others.
        attacks: one of each norm. None takes ten steps in both norms, with the usual radii at the `size`, see `usual_attacks`.
    """

    suite: Suite = "robust"
    size: int
    fit: str = "pad"
    seed: int = 0
    ensemble_images: int = 500
    entropy_images: int = 500
    certified_images: int = 500
    attacked_images: int = 64
    adapted_images: int = 100
    severities: tuple[int, ...] = (5,)
    smoothing: Smoothing = field(default_factory=Smoothing)
    diffaug: DiffAugSettings = field(default_factory=DiffAugSettings)
    dda: DDASettings = field(default_factory=DDASettings)
    attacks: tuple[Attack, ...] | None = None

    def __post_init__(self) -> None:
        if self.suite not in get_args(Suite):
            raise ConfigError(f"suite must be one of {', '.join(get_args(Suite))}, got {self.suite!r}")
        for name in ("size", "ensemble_images", "entropy_images", "certified_images", "attacked_images", "adapted_images"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        norms = [attack.norm for attack in self.attacks or ()]
        if self.attacks == () or len(set(norms)) != len(norms):
            raise ConfigError(f"attacks must be at least one, of different norms, got {', '.join(norms) or 'none'}")

    @property
    def plans(self) -> tuple[Attack, ...]:
        """The attacks, under the seed of the suite."""
        given = usual_attacks(self.size) if self.attacks is None else self.attacks
        return tuple(replace(attack, seed=self.seed) for attack in given)

    @property
    def corruptible(self) -> bool:
        """Whether pictures of the size can be corrupted."""
        return self.size >= SMALLEST

    @property
    def parts(self) -> tuple[str, ...]:
        return PARTS[self.suite]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def usual_attacks(size: int) -> tuple[Attack, ...]:
    """Ten steps in each norm, eight draws of a victim's noise, and the radii that are usual at the nearest published side by ratio."""
    side = min(_RADII, key=lambda known: abs(math.log(size / known)))
    return tuple(Attack(norm=norm, epsilon=radius, steps=10) for norm, radius in _RADII[side].items())
