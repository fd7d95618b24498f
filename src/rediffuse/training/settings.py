"""How long and how fast a classifier learns: the same for every arm of a comparison."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rediffuse.errors import ConfigError

Mode = Literal["linear", "whole"]
MODES: tuple[Mode, ...] = ("linear", "whole")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A fixed budget, its last step is what counts: nothing is chosen by looking at test images.

    Args:
        steps: optimiser steps.
        batch: pictures a step, drawn with replacement.
        learning_rate: of AdamW, at its largest; warmed up, then half a cosine to 0.
        weight_decay: decoupled.
        warmup: share of the steps, in [0, 1).
        smoothing: of the labels, in [0, 1).
    Reference: Loshchilov and Hutter, ICLR 2019, arXiv 1711.05101 (AdamW); ICLR 2017, arXiv 1608.03983 (cosine).
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    warmup: float = 0.05
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ConfigError(f"steps and batch must be at least 1, got {self.steps} and {self.batch}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be above 0 and finite, got {self.learning_rate}")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay must be at least 0 and finite, got {self.weight_decay}")
        if not 0 <= self.warmup < 1 or not 0 <= self.smoothing < 1:
            raise ConfigError(f"warmup and smoothing must be in [0, 1), got {self.warmup} and {self.smoothing}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        warm = round(self.warmup * self.steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


LINEAR = TrainSettings(steps=300, batch=64, learning_rate=0.001, weight_decay=0.01)
"""A linear head on frozen features: a tenth of a second."""
WHOLE = TrainSettings(steps=400, batch=32, learning_rate=0.004, weight_decay=0.05, smoothing=0.1)
"""A whole network of the small size: about 15 seconds of one core."""
DEFAULTS: dict[Mode, TrainSettings] = {"linear": LINEAR, "whole": WHOLE}
