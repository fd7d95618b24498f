"""Noise schedules as tables, computed in float64.

x_t = alpha[t] * x0 + sigma[t] * noise (Song et al., ICLR 2021, arXiv 2011.13456, Eq. 29); for variance-preserving schedules
alpha² = prod(1 - beta) (Ho et al., NeurIPS 2020, arXiv 2006.11239, Eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast, get_args

import torch
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule, Prediction
from rediffuse.errors import ConfigError, ModelError


def linear_betas(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """DDPM's and ADM's schedule. Returns (steps,) float64. Reference: arXiv 2006.11239, section 4."""
    return torch.linspace(start, end, steps, dtype=torch.float64)


def scaled_linear_betas(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Stable Diffusion's schedule: linear in the root of beta. Returns (steps,) float64. Reference: arXiv 2112.10752."""
    return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()


def cosine_betas(steps: int = 4000, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """Improved diffusion's schedule. Returns (steps,) float64. Reference: Nichol & Dhariwal 2021, arXiv 2102.09672, Eq. 17."""
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = torch.cos((time + offset) / (1 + offset) * torch.pi / 2).square()
    return (1 - kept[1:] / kept[:-1]).clamp(max=largest)


def ve_ratios(lowest: float = 0.01, highest: float = 50.0, steps: int = 1000) -> Tensor:
    """Levels of the variance-exploding schedule, each the same factor above the last, for `NoiseSchedule.from_ratios`.

    Args:
        lowest, highest: sigma of the first and the last, in units of the pictures that the denoiser knows.
        steps: levels, at least 2.
    Returns: (steps,) float64.
    Raises:
        ConfigError: levels that do not grow.
    Reference: Song et al., ICLR 2021, arXiv 2011.13456, appendix C.
    """
    if not 0 < lowest < highest < math.inf or steps < 2:
        raise ConfigError(f"levels need 0 < lowest < highest and at least 2 steps, got {lowest}, {highest} and {steps}")
    return torch.logspace(math.log10(lowest), math.log10(highest), steps, dtype=torch.float64)


def divide_noise(betas: Tensor, factor: float) -> Tensor:
    """The betas whose sigma / alpha is that of `betas` divided by `factor` at every step.

    Noise on 32x32 latents destroys twice as much as on 64x64: with factor 2 a strength means on the small what it means on the
    large. Args: betas (T,) float64. Returns: (T,) float64.
    """
    kept = (1 - betas).cumprod(0)
    ratio = ((1 - kept) / kept).sqrt() / factor
    kept = 1 / (1 + ratio.square())
    return 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """The betas whose last step holds no signal at all; v- and sample-prediction only. (T,) -> (T,) float64.

    sqrt(abar) is shifted to end at 0 and scaled to start where it did. Reference: Lin et al., WACV 2024, arXiv 2305.08891, Algorithm 1.
    """
    root = (1 - betas.double()).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    kept = root.square()
    return 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])


def betas_of(config: Mapping[str, Any]) -> Tensor:
    """Betas (T,) float64 of a scheduler_config.json; entries that are missing have the defaults of diffusers' schedulers.

    Raises ModelError for a schedule that is not made of betas.
    """
    kind = config.get("beta_schedule", "linear")
    steps, start, end = int(config.get("num_train_timesteps", 1000)), config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    trained = config.get("trained_betas")
    if "FlowMatch" in str(config.get("_class_name", "")):
        raise ModelError(f"the scheduler {config['_class_name']} is a flow, not a table of betas; this model family is not supported")
    if trained is not None:
        betas = torch.tensor(trained, dtype=torch.float64)
    elif kind == "linear":
        betas = linear_betas(steps, start, end)
    elif kind == "scaled_linear":
        betas = scaled_linear_betas(steps, start, end)
    elif kind == "squaredcos_cap_v2":
        betas = cosine_betas(steps)
    else:
        raise ModelError(f"beta_schedule {kind!r} is not known; known are linear, scaled_linear, squaredcos_cap_v2 and trained_betas")
    if betas.ndim != 1 or len(betas) < 2 or not bool(((betas > 0) & (betas <= 1)).all()) or bool((betas[:-1] == 1).any()):
        raise ModelError(
            "betas must be a list of at least 2 numbers between 0 and 1 (1 itself, no signal, only at the end), "
            f"got {len(betas)} from {betas.min():g} to {betas.max():g}"
        )
    return zero_terminal_snr(betas) if config.get("rescale_betas_zero_snr") else betas


def prediction_of(config: Mapping[str, Any]) -> Prediction:
    """What the network puts out, by a scheduler_config.json. Raises ModelError for anything but epsilon, v_prediction and sample."""
    kind: str = config.get("prediction_type", "epsilon")
    if kind not in get_args(Prediction):
        raise ModelError(f"prediction_type {kind!r} is not known; known are {', '.join(get_args(Prediction))}")
    silent = config.get("rescale_betas_zero_snr") or (config.get("trained_betas") or [0])[-1] == 1
    if kind == "epsilon" and silent:
        raise ModelError("this schedule leaves no signal at the last step, where epsilon says nothing about x0; use v_prediction")
    return cast(Prediction, kind)


def schedule_of(config: Mapping[str, Any]) -> NoiseSchedule:
    """The table of a scheduler_config.json."""
    return NoiseSchedule.from_betas(betas_of(config))
