"""Diffusion-driven adaptation (DDA): a test image goes far into noise and comes back as the denoiser's training data look.

What is coarse in the image steers the way back, so that it stays the image of the same thing.

Reference: Gao, Zhang, Liu, Darrell, Shelhamer, Wang. Back to the Source: Diffusion-Driven Adaptation To Test-Time Corruption. CVPR 2023,
arXiv 2207.03442.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.denoisers.base import Denoiser, NoiseSchedule
from rediffuse.denoisers.memory import checkpointed, checkpointing
from rediffuse.denoisers.pixel import check_unconditional
from rediffuse.denoisers.precision import no_autocast
from rediffuse.errors import ConfigError
from rediffuse.evaluation.test_time.ensembles import CHUNK, Ensemble
from rediffuse.methods.noise_times import REFERENCE_SIZE, levels, size_factor
from rediffuse.sampling.sampler import noise_generator
from rediffuse.sampling.solvers import ancestral
from rediffuse.sampling.table import StepTable
from rediffuse.training.cost import IMAGE_PASSES, denoiser_operations

GUIDANCE, FACTOR = 3.0, 4
"""As published, for pictures of 256 pixels."""
SMALL = 45
"""Side in pixels up to which what was found best at 32 is taken: where 32 is nearer by ratio than 64."""
SMALL_GUIDANCE, SMALL_FACTOR = 12.0, 2
"""The best of seven on pictures of 32 pixels (`recipes.dda_guidance`)."""


@dataclass(frozen=True, kw_only=True)
class DDASettings:
    """How far an image goes, and what holds it on the way back.

    Args:
        start: time of the reference schedule (ADM's, 1,000 steps) to which the image is noised, 1 to 999; the paper's is about 500.
        steps: denoiser calls on the way back.
        guidance: w of Eq. 4 at the reference size, at least 0; 0 lets go of the image. None takes 12 for pictures of up to 45 pixels, as
            `recipes.dda_guidance` found best at 32, else the published weight: the program divides the gradient by the norm over its
            whole batch of 4 images, which makes its 6 a 3 for each image.
        factor: of the low-pass filter, in pixels. None takes 2 for pictures of up to 45 pixels, found likewise, else the published 4.
        clamp: whether beliefs are clamped to the range of images, as in the published program.
        self_ensemble: ask the classifier about the raw image too and take the mean (DDA-SE).
        reference_size: side in pixels at which start and guidance are stated. sigma at the start is multiplied by size / reference_size,
            and so is guidance: the gradient of a norm has the same length for any number of pixels, so on few pixels each would be
            moved more. None takes both as they are. The authors work at 256 pixels, where the 224 of this package makes their start of
            500 a 524 and their guidance of 3 a 3.43; with 256 or None both are theirs.
    """

    start: int = 500
    steps: int = 50
    guidance: float | None = None
    factor: int | None = None
    clamp: bool = True
    self_ensemble: bool = False
    reference_size: int | None = REFERENCE_SIZE

    def __post_init__(self) -> None:
        if not 1 <= self.start <= 999:
            raise ConfigError(f"start must be 1 to 999, a time of the reference schedule, got {self.start}")
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {self.steps}; the paper's is 50")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ConfigError(f"guidance must be a number of at least 0, got {self.guidance}; 0 lets go of the image")
        if self.factor is not None and self.factor < 1:
            raise ConfigError(f"factor of the low-pass filter must be at least 1, got {self.factor}")

    def at(self, size: int) -> tuple[float, int]:
        """(guidance in the denoiser's space, factor) for pictures whose shorter side is `size` pixels.

        Taken as they are (reference_size None), guidance and factor are the published ones where nothing is said.
        """
        small = self.reference_size is not None and size <= SMALL
        guidance, factor = (SMALL_GUIDANCE, SMALL_FACTOR) if small else (GUIDANCE, FACTOR)
        guidance = guidance if self.guidance is None else self.guidance
        return guidance * size_factor(size, self.reference_size), factor if self.factor is None else self.factor


class DDA(Ensemble):
    """A classifier on images that were brought back to the denoiser's training data; alone or together with the raw image.

    Choose it as the strong and dear baseline of test-time adaptation: 50 denoiser calls an image with their gradients, about eleven
    times the cost of a DiffAug ensemble. It costs accuracy on clean images; `self_ensemble` gives most of that back.

    Noise is made on the CPU from the image's seed, as the sampler's is: without guidance and clamp the result is that of the job
    (start, ancestral table) with the same seed. No gradient flows back to the images. For the guidance OpenAI's networks compute their
    activations again instead of keeping them: 64 large images would not fit, and it takes a third more time.

    Args:
        classifier: (B, 3, H, W) in [0, 1] -> logits (B, K).
        denoiser: in pixel space, unconditional.
        settings: how far, and what holds.
        seed: of all noise.
        chunk: images in one call.
    Raises: ConfigError for a latent or conditional denoiser, or a schedule with fewer levels below the start than steps.
    """

    def __init__(
        self, classifier: nn.Module, denoiser: Denoiser, settings: DDASettings | None = None, *, seed: int = 0, chunk: int = CHUNK
    ) -> None:
        super().__init__(classifier, seed=seed, chunk=chunk)
        check_unconditional(denoiser, "DDA")
        self.denoiser, self.chosen = denoiser, settings or DDASettings()
        self._fingerprint = denoiser.fingerprint()
        self.members = ("raw", "adapted") if self.chosen.self_ensemble else ("adapted",)
        self.multiple_of = denoiser.multiple_of

    @property
    def settings(self) -> dict[str, Any]:
        told = {"ensemble": "dda", "seed": self.seed, "denoiser": self._fingerprint, **asdict(self.chosen)}
        usual = {"guidance": (SMALL, SMALL_GUIDANCE, GUIDANCE), "factor": (SMALL, SMALL_FACTOR, FACTOR)}
        return told | {name: by_size for name, by_size in usual.items() if told[name] is None}

    @property
    def made_by(self) -> dict[str, Any]:
        return {**self.settings, "self_ensemble": None}  # the adapted view is the same with and without the raw one beside it

    def operations(self, size: int) -> float:
        passes = IMAGE_PASSES + bool(checkpointed(self.denoiser)) if self.chosen.at(size)[0] > 0 else 1
        return self.chosen.steps * passes * denoiser_operations(self.denoiser, (size, size))

    def views(self, images: Tensor, member: Tensor, seeds: Tensor) -> Tensor:
        chosen = (member == len(self.members) - 1).nonzero().flatten()
        where = chosen.to(images.device)
        return images.index_copy(0, where, self.adapt(images[where], seeds[chosen])) if len(chosen) else images

    def adapt(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The images as the denoiser's training data look. images: (B, 3, H, W) in [0, 1]; seeds: (B,) int64. Returns the same shape."""
        if images.requires_grad and torch.is_grad_enabled():
            raise ConfigError("DDA gives no gradient in the image: its steps are not kept; ask it under torch.no_grad()")
        size = min(images.shape[-2:])
        table = table_from(self.denoiser.schedule, self.start_level(size), self.chosen.steps)
        guidance, factor = self.chosen.at(size)
        # The guidance needs gradients even where the caller forbids them, and beliefs more digits than a caller's autocast has.
        with torch.inference_mode(False), torch.no_grad(), no_autocast(images.device), checkpointing(self.denoiser):
            source = self.denoiser.encode(images.float())
            hold = low_pass(source, factor)

            def residual(x0_hat: Tensor) -> Tensor:
                return hold - low_pass(x0_hat, factor)

            x = guided_sampling(self.denoiser, source, table, seeds, residual, guidance, clamp=self.chosen.clamp)
            return self.denoiser.decode(x).to(images.dtype)

    def start_level(self, size: int) -> int:
        """Index into the denoiser's schedule at which images whose shorter side is `size` pixels start."""
        return int(levels(self.denoiser.schedule, (self.chosen.start,), size, self.chosen.reference_size).t[0])


def guided_sampling(
    denoiser: Denoiser,
    source: Tensor,
    table: StepTable,
    seeds: Tensor,
    residual: Callable[[Tensor], Tensor],
    guidance: float,
    *,
    clamp: bool,
) -> Tensor:
    """DDA's way into noise and back, in the denoiser's space.

    x_N = alpha_N source + sigma_N z_N                                   (1)  (DDPM, arXiv 2006.11239, Eq. 4)
    x0_hat = clamp denoiser(x_t, t)                                      (2)
    d = || phi(source) - phi(x0_hat) ||_2, one norm for each image       (3)  phi: `low_pass`
    x_t' = mean(x_t, x0_hat) + deviation z_t - w grad_{x_t} d            (4)  mean and deviation of the posterior, DDPM's Eq. 7

    Args:
        source: (B, 3, H, W).
        table: one belief a step, its start, and the coefficients of (4), as `solvers.ancestral` gives them.
        seeds: (B,) int64 on the CPU, of each image's noise.
        residual: x0_hat -> phi(source) - phi(x0_hat).
        guidance: w.
        clamp: whether (2) clamps to [-1, 1].
    """
    schedule, shape = denoiser.schedule, source.shape[1:]
    generators = [noise_generator(seed) for seed in seeds.tolist()]

    def noise() -> Tensor:
        return torch.stack([torch.randn(shape, generator=own) for own in generators]).to(source.device)

    first = torch.full((len(source),), int(table.t[0] if table.start is None else table.start), dtype=torch.int64, device=source.device)
    x = schedule.add_noise(source, noise(), first)  # (1)
    for t, keep, believe, fresh in zip(
        table.t.tolist(), table.x.tolist(), table.history[:, 0].tolist(), table.noise.tolist(), strict=True
    ):  # fmt: skip
        pull: Tensor | None = None
        with torch.set_grad_enabled(guidance > 0):
            x = x.requires_grad_(guidance > 0)
            x0_hat = denoiser(x, torch.full_like(first, t))
            x0_hat = x0_hat.clamp(-1, 1) if clamp else x0_hat  # (2)
            if guidance > 0:
                distance = torch.linalg.vector_norm(residual(x0_hat).flatten(1), dim=1)  # (B,) (3)
                (pull,) = torch.autograd.grad(distance.sum(), x)  # each image's own: no row knows of another
        x = keep * x.detach() + believe * x0_hat.detach()
        x = x + fresh * noise() if fresh else x
        x = x if pull is None else x - guidance * pull  # (4)
    return x


def table_from(schedule: NoiseSchedule, start: int, steps: int) -> StepTable:
    """`steps` calls in equal strides of t, from level `start` to level 0 and from there to the clean image."""
    if steps > start + 1:
        raise ConfigError(
            f"{steps} steps back need as many levels, but this schedule starts at level {start} for images of this size; take at most "
            f"{start + 1} steps, or a later start"
        )
    if bool((schedule.sigma[: start + 1] <= 0).any()):
        raise ConfigError("this schedule has a level without noise, from which no step back can be taken; give a denoiser without one")
    t = torch.linspace(start, 0 if steps > 1 else start, steps, dtype=torch.float64).round().long()
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    alpha = torch.cat([schedule.alpha.double().cpu()[t], one])  # (steps + 1,)
    sigma = torch.cat([schedule.sigma.double().cpu()[t], zero])
    return ancestral(t, alpha, sigma)


def low_pass(x: Tensor, factor: int) -> Tensor:
    """phi: what is left of (B, C, H, W) when it is scaled down by a factor (bicubic, antialiased) and up again. Linear in x."""
    height, width = x.shape[-2:]
    if factor > min(height, width):
        raise ConfigError(f"the low-pass filter scales down by {factor}, but images are {height}x{width}; take a smaller factor")
    if factor == 1:
        return x
    small = (round(height / factor), round(width / factor))
    down = F.interpolate(x, size=small, mode="bicubic", align_corners=False, antialias=True)
    return F.interpolate(down, size=(height, width), mode="bicubic", align_corners=False)
