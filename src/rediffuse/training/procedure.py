"""By which means a network is trained: optimiser, schedule, order of the pictures, averaging, number format."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rediffuse.denoisers.precision import resolve_dtype
from rediffuse.errors import ConfigError
from rediffuse.training.augment import generator_of
from rediffuse.training.settings import TrainSettings

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "step", "constant"]
Order = Literal["replacement", "epochs"]
Numbers = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """Means of a training; `TrainSettings` says how long and how fast.

    Args:
        optimizer: adamw or sgd.
        momentum: of sgd, in [0, 1).
        nesterov: sgd's momentum looks ahead; the DiffAug paper's ResNet-50 from random weights does without, its fine-tunings with it.
        schedule: cosine (warmed up, to 0), step (a tenth at each of `drops`) or constant; the warm-up holds for all.
        drops: shares of the steps, in (0, 1), growing; the DiffAug paper's ResNet-50 has 1/3 and 2/3.
        order: replacement (every draw uniform over the pictures) or epochs (each picture once, in a new order, then again).
        ema: decay of an exponential moving average of the weights, which is then the result; 0 keeps the last weights.
        clip: largest norm of the gradient; 0 leaves it.
        dtype: of the network's forward pass. auto is bfloat16 where the hardware computes it; the loss and the weights are float32.
    """

    optimizer: Optimizer = "adamw"
    momentum: float = 0.9
    nesterov: bool = True
    schedule: Schedule = "cosine"
    drops: tuple[float, ...] = (0.5, 0.75)
    order: Order = "replacement"
    ema: float = 0.0
    clip: float = 0.0
    dtype: Numbers = "float32"

    def __post_init__(self) -> None:
        for name, kinds in (("optimizer", Optimizer), ("schedule", Schedule), ("order", Order), ("dtype", Numbers)):
            if getattr(self, name) not in get_args(kinds):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")
        if not 0 <= self.momentum < 1 or not 0 <= self.ema < 1:
            raise ConfigError(f"momentum and ema must be in [0, 1), got {self.momentum} and {self.ema}")
        if not all(0 < drop < 1 for drop in self.drops) or list(self.drops) != sorted(set(self.drops)):
            raise ConfigError(f"drops are growing shares of the steps in (0, 1), got {self.drops}")
        if not (self.clip >= 0 and math.isfinite(self.clip)):
            raise ConfigError(f"clip must be at least 0, got {self.clip}; 0 leaves the gradient as it is")

    def rate(self, settings: TrainSettings, step: int) -> float:
        """The learning rate of a step, from 0."""
        if self.schedule == "cosine":
            return settings.rate(step)
        warm = round(settings.warmup * settings.steps)
        if step < warm:
            return settings.learning_rate * (step + 1) / warm
        passed = sum(step >= drop * settings.steps for drop in self.drops) if self.schedule == "step" else 0
        return float(settings.learning_rate * 0.1**passed)

    def optimizer_of(self, parameters: Iterable[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
        """The optimiser, weight decay on all weights."""
        common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "foreach": True}
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=self.momentum, nesterov=self.nesterov and self.momentum > 0, **common)
        return torch.optim.AdamW(parameters, **common)

    def numbers(self, device: torch.device) -> torch.dtype:
        """What the forward pass computes in on this device."""
        found = resolve_dtype(self.dtype, device)
        return torch.float32 if found is torch.float16 else found  # float16 would need its gradients scaled


PROCEDURE = Procedure()
"""What few-shot comparisons are trained by."""


def epoch_rows(count: int, batch: int, seed: int, step: int) -> Tensor:
    """The pictures of a step, (batch,) int64: a piece of endless shuffled epochs, a function of (seed, step).

    A batch may end one epoch and begin the next, so every picture comes equally often whatever the batch is.
    """
    places = torch.arange(step * batch, (step + 1) * batch)
    epochs = places // count
    rows = torch.empty_like(places)
    for epoch in epochs.unique().tolist():
        inside = epochs == epoch
        rows[inside] = _order(count, seed, epoch)[places[inside] % count]
    return rows


def steps_of(epochs: float, count: int, batch: int) -> int:
    """Steps that show every one of `count` pictures `epochs` times."""
    if not 0 < epochs < math.inf or count < 1 or batch < 1:
        raise ConfigError(f"epochs, pictures and batch must be above 0 and finite, got {epochs}, {count} and {batch}")
    return math.ceil(epochs * count / batch)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator_of("order", seed, epoch))
