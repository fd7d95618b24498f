"""Guidance as composition: a wrapper around a denoiser that is a denoiser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.base import Condition, Denoiser
from rediffuse.errors import ConfigError


def check_guidance(scale: float) -> None:
    """Raise ConfigError for a scale that is no number of at least 0."""
    if not (math.isfinite(scale) and scale >= 0):
        raise ConfigError(f"guidance scale must be a number of at least 0, got {scale}; 1 is no guidance")


class ClassifierFree(Denoiser):
    """Classifier-free guidance: away from what the model believes without the prompt, towards what it believes with it.

        x0_hat = x0_empty + scale (x0_prompt - x0_empty)

    This equals guidance on the noise, noise = noise_empty + scale (noise_prompt - noise_empty): x0_hat = (x_t - sigma noise) / alpha is
    affine in the noise at a given x_t, and an affine map commutes with a combination whose weights, scale and 1 - scale, sum to 1. So it
    does with v, which is affine in x0_hat too.

    Use it for every text-to-image model. Each call is one batch of twice the rows; scale 1 is the plain conditional model and scale 0
    the plain unconditional one, at the cost of one batch.

    Args:
        denoiser: a conditional denoiser; it is not copied.
        scale: at least 0; 7.5 is what Stable Diffusion pipelines and DA-Fusion use, smaller keeps more variety.
        empty: the prompt that stands for no prompt (or a negative prompt), or its condition of one row; embedded once, here.
    Raises: ConfigError.
    Reference: Ho & Salimans 2022, arXiv 2207.12598, Eq. 6 (their w is scale - 1).
    """

    def __init__(self, denoiser: Denoiser, scale: float, empty: Condition | str = "") -> None:
        super().__init__()
        check_guidance(scale)
        self.denoiser = denoiser
        self.scale = float(scale)
        self.schedule = denoiser.schedule
        self.channels = denoiser.channels
        self.size = denoiser.size
        self.factor = denoiser.factor
        self.multiple_of = denoiser.multiple_of
        self.conditional = True
        self.spec = denoiser.spec
        if self.scale == 1:
            empty = Condition()
        elif isinstance(empty, str):
            with torch.no_grad():
                empty = denoiser.embed([empty])
        if self.scale != 1 and len(empty) != 1:
            raise ConfigError(f"the empty condition is one row, got {len(empty)}; take one with `condition.index([row])`")
        for f in fields(empty):  # buffers, so that they follow the module to a device; not weights
            value = getattr(empty, f.name)
            self.register_buffer(f"empty_{f.name}", None if value is None else value.detach(), persistent=False)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        if condition is None:
            raise ConfigError("classifier-free guidance needs a condition; make it with `denoiser.embed(prompts)`")
        if self.scale in (0, 1):
            x0_hat: Tensor = self.denoiser(x_t, t, condition if self.scale == 1 else self._empty(len(x_t)))
            return x0_hat
        rows = Condition.cat([self._empty(len(x_t)), condition])
        both = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), rows)  # (2B, C, H, W)
        without, with_prompt = both.float().chunk(2)
        guided: Tensor = without + self.scale * (with_prompt - without)
        return guided

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        """The loss of the denoiser itself: guidance is no part of training."""
        return self.denoiser.loss(x0, t, noise, condition)

    def encode(self, images: Tensor) -> Tensor:
        return self.denoiser.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        return self.denoiser.decode(x)

    def embed(self, prompts: Sequence[str], words: Mapping[str, Tensor] | None = None) -> Condition:
        return self.denoiser.embed(prompts, words)

    def fingerprint(self) -> str:
        """Of the denoiser itself; how far it is guided is a setting of who guides."""
        return self.denoiser.fingerprint()

    def _empty(self, rows: int) -> Condition:
        values: dict[str, Any] = {f.name: getattr(self, f"empty_{f.name}") for f in fields(Condition)}
        return Condition(**{name: None if value is None else value.expand(rows, *value.shape[1:]) for name, value in values.items()})
