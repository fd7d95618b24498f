"""Noise schedules as tables, computed in float64.

x_t = alpha[t] * x0 + sigma[t] * noise (Song et al., ICLR 2021, arXiv 2011.13456, Eq. 29); for variance-preserving schedules
alpha² = prod(1 - beta) (Ho et al., NeurIPS 2020, arXiv 2006.11239, Eq. 4).
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def divide_noise(betas: Tensor, factor: float) -> Tensor:
    """The betas whose sigma / alpha is that of `betas` divided by `factor` at every step.

    Noise on 32x32 latents destroys twice as much as on 64x64: with factor 2 a strength means on the small what it means on the
    large. Args: betas (T,) float64. Returns: (T,) float64.
    """
    kept = (1 - betas).cumprod(0)
    ratio = ((1 - kept) / kept).sqrt() / factor
    kept = 1 / (1 + ratio.square())
    return 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
