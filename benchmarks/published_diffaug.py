"""The published DiffAug transform, written from its description: what `diffaug.py` compares with.

One ancestral step of the diffusion library it was built on, of which x0_hat alone is kept: every coefficient is looked up in a float64
numpy table on the host and sent to the device at each call, the map of times is sent anew each time, posterior mean and variance and a
second noise are computed and thrown away. The network is called as it was built, without compilation, in the numbers that it came in.
Attention is torch's fused one, as in ours: the published einsum would only make it slower.

Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192; Dhariwal and Nichol, NeurIPS 2021, arXiv 2105.05233.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rediffuse.denoisers.adm import PUBLISHED, AdmDenoiser
from rediffuse.denoisers.adm_network import AdmNetwork
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.precision import resolve_dtype
from rediffuse.methods.noise_times import AdmUniform


class PublishedDiffAug:
    """(B, 3, H, W) in [0, 1] -> views in [0, 1]. The law of the times is ours, so that both look at equally noisy pictures."""

    def __init__(self, denoiser: PixelDenoiser) -> None:
        self.denoiser = copy.deepcopy(denoiser).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        alpha = denoiser.schedule.alpha.double().cpu().numpy()
        bar = alpha**2
        before = np.append(1.0, bar[:-1])
        betas = 1 - bar / before
        self.tables: dict[str, NDArray[np.float64]] = {
            "keep": np.sqrt(bar),
            "noise": np.sqrt(1 - bar),
            "inverse": np.sqrt(1 / bar),
            "inverse_noise": np.sqrt(1 / bar - 1),
            "mean_clean": betas * np.sqrt(before) / (1 - bar),
            "mean_noisy": (1 - before) * np.sqrt(1 - betas) / (1 - bar),
            "variance": betas * (1 - before) / (1 - bar),
            "log_variance": np.log(np.maximum(betas * (1 - before) / (1 - bar), 1e-20)),
            "log_beta": np.log(betas),
        }
        self.times = list(range(len(bar)))

    def __call__(self, images: Tensor) -> Tensor:
        size = min(images.shape[2:])
        t = AdmUniform().draw(len(images), self.denoiser.schedule, size, torch.Generator().manual_seed(0)).to(images.device)
        return self.view(images, t, torch.randn_like(images))

    @torch.no_grad()
    def view(self, images: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The views of these times (B,) and this noise."""
        x0, t = 2 * images - 1, t.to(images.device)
        x_t = self.look("keep", t, x0) * x0 + self.look("noise", t, x0) * noise
        told = torch.tensor(self.times, device=t.device)[t]
        epsilon = self.denoiser.output(x_t, told)
        clean = (self.look("inverse", t, x0) * x_t - self.look("inverse_noise", t, x0) * epsilon).clamp(-1, 1)
        mean = self.look("mean_clean", t, x0) * clean + self.look("mean_noisy", t, x0) * x_t
        share = (self.look("variance", t, x0) > 0).float()
        log_variance = share * self.look("log_beta", t, x0) + (1 - share) * self.look("log_variance", t, x0)
        _ = mean + (0.5 * log_variance).exp() * torch.randn_like(x0)  # the sample, which nobody looks at
        return ((clean + 1) / 2).clamp(0, 1)

    def look(self, name: str, t: Tensor, like: Tensor) -> Tensor:
        """A coefficient for each sample, from the host."""
        return torch.from_numpy(self.tables[name]).to(device=like.device)[t].float().view(-1, *[1] * (like.ndim - 1)).expand(like.shape)


def random_adm(device: torch.device, numbers: str) -> PixelDenoiser:
    """ADM's unconditional architecture of 256 pixels with random weights; at 224 pixels its speed is that of the real ones."""
    published = PUBLISHED["256x256_diffusion_uncond"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with device:
            network: nn.Module = AdmNetwork(published.architecture, published.settings.heads)
    denoiser = AdmDenoiser(network, published.settings, dtype=resolve_dtype(numbers, device))  # type: ignore[arg-type]
    denoiser.size = 224
    return denoiser.to(device)
