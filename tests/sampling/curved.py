"""A network that is no model of anything: smooth, nonlinear, different at every t and under every condition.

One function, for diffusers and for us.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rediffuse.denoisers.base import Condition, Denoiser, NoiseSchedule, clean_from_output
from rediffuse.denoisers.schedules import scaled_linear_betas
from rediffuse.sampling.sampler import noise_generator
from rediffuse.sampling.table import SamplingJob, StepTable

SHAPE = (4, 8, 8)


def curved(x: Tensor, t: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """ "Noise" of the size of noise. x: (B, C, H, W); t: (B,); shift: (B, 1, 1, 1)."""
    time = t.float().view(-1, 1, 1, 1) / 250
    return torch.sin(1.7 * x + time + shift) + 0.3 * torch.cos(x.roll(1, -1) - 2 * time)


def stable_schedule() -> NoiseSchedule:
    return NoiseSchedule.from_betas(scaled_linear_betas())


class Curved(Denoiser):
    """The denoiser of `curved`; `conditional` ones are shifted by their label."""

    channels = SHAPE[0]

    def __init__(self, schedule: NoiseSchedule | None = None, conditional: bool = False) -> None:
        super().__init__()
        self.schedule = schedule or stable_schedule()
        self.conditional = conditional
        self.batches: list[int] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        self.batches.append(len(x_t))
        shift = 0.0 if condition is None or condition.labels is None else condition.labels.float().view(-1, 1, 1, 1)
        alpha, sigma = self.schedule.at(t, x_t)
        return clean_from_output(curved(x_t, t, shift), x_t, alpha, sigma, "epsilon")

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        x0_hat = self(self.schedule.add_noise(x0, noise, t), t, condition)
        return (x0_hat - x0).square().mean((1, 2, 3))

    def embed(self, prompts: Sequence[str], words: object = None) -> Condition:
        return Condition(labels=torch.tensor([len(prompt) for prompt in prompts]))


def source(number: int, shape: Sequence[int] = SHAPE) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 + number))


def job(table: StepTable, number: int, condition: Condition | None = None, mask: Tensor | None = None) -> SamplingJob:
    """The job of this number: its source and its seed."""
    return SamplingJob(source=source(number), table=table, condition=condition, seed=number, mask=mask)


def start_noise(seed: int, shape: Sequence[int] = SHAPE) -> Tensor:
    return torch.randn(*shape, generator=noise_generator(seed))
