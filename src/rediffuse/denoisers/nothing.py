"""No denoiser at all: the control that shows what noise alone does."""

from __future__ import annotations

import torch
from torch import Tensor

from rediffuse.denoisers.base import Condition, Denoiser, NoiseSchedule


class NoDenoiser(Denoiser):
    """x0_hat = x_t / alpha = x0 + (sigma / alpha) noise: takes the noisy image for the clean one.

    `DiffAug(NoDenoiser(schedule))` gives noise-only views, x + sigma z clamped, under the same laws, seeds and noise as the denoised ones.

    Args:
        schedule: any table whose alpha is above 0 where it is used.
    """

    channels = 3

    def __init__(self, schedule: NoiseSchedule, size: int | None = None) -> None:
        super().__init__()
        self.schedule, self.size = schedule, size
        self.register_buffer("place", torch.empty(0), persistent=False)  # says which device it was sent to, where its noise is then made

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        alpha, _ = self.schedule.at(t, x_t)
        return x_t.float() / alpha

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Mean squared error of x0_hat, (B,)."""
        error: Tensor = (self(self.schedule.add_noise(x0, noise, t), t, condition) - x0).square().mean((1, 2, 3))
        return error
