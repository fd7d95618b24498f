"""A classifier that sees every image under Gaussian noise, with or without a denoiser before it.

    g(x) = argmax_c P[ f(D(x + sigma z)) = c ],   z ~ N(0, I)                                                           (1)
    D(y) = clamp x0_hat(alpha_t* (2 y - 1), t*)                                                                         (2)

What is certified is the tensor x in [0, 1]: noise of exactly sigma comes upon it once and nothing is clipped before the denoiser, so
that any deterministic D and f keep the certificate. t* is told a little more noise than there is, which costs accuracy at most.

References: Cohen, Rosenfeld, Kolter. ICML 2019, arXiv 1902.02918. Carlini et al. ICLR 2023, arXiv 2206.10550.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.pixel import check_unconditional
from rediffuse.errors import ConfigError
from rediffuse.evaluation.certify.bounds import check_alpha, check_sigma, noise_time
from rediffuse.sampling.sampler import noise_generator

BLOCK = 64
"""Draws that are made in one go. Part of what a draw is: another number gives other noise."""


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """How certificates are made. Nothing in it depends on what the draws say: there is no stopping by result.

    Args:
        sigmas: noise levels on [0, 1] images, one curve each.
        selection: N0, draws that choose the class.
        draws: N, further draws that measure it. 10,000 is published for ImageNet, 100,000 for CIFAR-10; the ceiling of a radius is
            sigma Phi^-1(alpha^(1/N)): 2.46 sigma for 1,000 at alpha .001, 3.20 sigma for 10,000.
        alpha: chance that a certificate is wrong, for each image.
        seed: of all noise.
    """

    sigmas: tuple[float, ...] = (0.25, 0.5, 1.0)
    selection: int = 100
    draws: int = 1000
    alpha: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.sigmas, Sequence):
            raise ConfigError(f"sigmas are noise levels, such as (0.25, 0.5), got {self.sigmas!r}")
        if not self.sigmas or len(set(self.sigmas)) != len(self.sigmas):
            raise ConfigError(f"sigmas must be one noise level or several different ones, got {self.sigmas}")
        for sigma in self.sigmas:
            check_sigma(sigma)
        if self.selection < 1 or self.draws < 1:
            raise ConfigError(f"selection and draws must be at least 1, got {self.selection} and {self.draws}")
        check_alpha(self.alpha)

    @property
    def total(self) -> int:
        """Draws of an image."""
        return self.selection + self.draws

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sigmas": list(self.sigmas)}


class Draws:
    """The standard normal draws of one image, in order; a function of (seed, image, number of the draw) and of nothing else.

    One stream an image, made on the CPU: no two draws share noise, and a resumed image draws the same again on every device. All sigmas
    see the same z, so that their curves are paired.

    Args:
        key: what tells the image from others, such as the hash of its pixels.
        shape: of a draw.
    """

    def __init__(self, seed: int, key: str, shape: Sequence[int]) -> None:
        digest = hashlib.blake2b(f"certify/{seed}/{key}".encode(), digest_size=8).digest()
        self._generator = noise_generator(int.from_bytes(digest, "little") >> 1)
        self._shape = tuple(shape)
        self._left = torch.empty(0, *self._shape)

    def take(self, count: int) -> Tensor:
        """The next draws, (count, *shape) float32."""
        parts, missing = [self._left], count - len(self._left)
        while missing > 0:
            parts.append(torch.randn(BLOCK, *self._shape, generator=self._generator))
            missing -= BLOCK
        made = torch.cat(parts)
        self._left = made[count:]
        return made[:count]


class Smoother:
    """What stands between an image and the classifiers at one sigma: noise, and a denoiser or nothing.

    Args:
        denoiser: unconditional, in pixel space; None smoothes plainly: the classifiers see x + sigma z as it is, beyond [0, 1].
            `NoDenoiser` is a third thing: it clamps.
        sigma: on [0, 1] images.
    Raises:
        ConfigError: a latent or conditional denoiser, or a sigma beyond its schedule.
    """

    def __init__(self, denoiser: Denoiser | None, sigma: float) -> None:
        check_sigma(sigma)
        self.denoiser, self.sigma, self.time = denoiser, sigma, -1
        if denoiser is not None:
            check_unconditional(denoiser, "certified smoothing")
            self.time = noise_time(denoiser.schedule, sigma)
            denoiser.eval()

    def __call__(self, images: Tensor, noise: Tensor) -> Tensor:
        """What the classifiers are given. images: (B, 3, H, W) in [0, 1]; noise: (B, 3, H, W) standard normal."""
        noisy = images + self.sigma * noise
        if self.denoiser is None:
            return noisy
        t = torch.full((len(noisy),), self.time, dtype=torch.int64, device=noisy.device)
        alpha, _ = self.denoiser.schedule.at(t, noisy)
        return self.denoiser.decode(self.denoiser(alpha * self.denoiser.encode(noisy), t))  # (2)
