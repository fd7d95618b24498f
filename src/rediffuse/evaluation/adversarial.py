"""Whether an adversary who knows everything brings a classifier down: projected gradients, exact through denoisers, mean over their noise.

An ensemble of noisy views is no defence. Attacked without its gradients or on one draw of its noise it looks like one; this is the check
against that. It shows weakness, never strength: what survives here may fall to a better attack. Certificates show strength.

References: Madry et al., ICLR 2018, arXiv 1706.06083 (PGD); Athalye et al., ICML 2018, arXiv 1802.00420 (expectation over noise, gradients
that are masked); Carlini & Wagner, S&P 2017, arXiv 1608.04644 (margin).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError, ModelError
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.kept import numbers_of
from rediffuse.evaluation.test_time.ensembles import Ensemble, seed_of
from rediffuse.methods.diffaug import DiffAug, DiffAugDraw
from rediffuse.methods.noise_times import REFERENCE_SIZE, levels
from rediffuse.sampling.sampler import noise_generator

Norm = Literal["l2", "linf"]
Loss = Literal["cross_entropy", "margin"]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Projected gradient ascent of a loss in a ball around each image, inside [0, 1].

    Args:
        norm: "l2" or "linf", on [0, 1] images.
        epsilon: radius of the ball. Usual: linf 8 / 255 and l2 0.5 on CIFAR-10, linf 4 / 255 and l2 3 on ImageNet.
        steps: of the ascent.
        step_size: None takes 2.5 epsilon / steps.
        restarts: the first begins at the image, others at random in the ball; the one of highest loss counts.
        draws: of the victim's noise behind each gradient, fresh ones in every step. A victim without noise is asked once; one that draws
            noise and is attacked on a single draw looks like a defence.
        loss: "margin" (best other class minus the true one), which no confidence can flatten, or "cross_entropy", as published.
        seed: of starts and noise.
    """

    norm: Norm = "linf"
    epsilon: float = 8 / 255
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    draws: int = 8
    loss: Loss = "margin"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm) or self.loss not in get_args(Loss):
            raise ConfigError(
                f"norm must be one of {', '.join(get_args(Norm))} and loss one of {', '.join(get_args(Loss))}, "
                f"got {self.norm!r} and {self.loss!r}"
            )
        for name in ("epsilon", "step_size"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be above 0, on [0, 1] images, got {value}")
        for name in ("steps", "restarts", "draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def step(self) -> float:
        """The length of a step."""
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    def draws_for(self, victim: Victim) -> int:
        """Draws behind each gradient of a victim."""
        return self.draws if victim.noisy else 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Victim:
    """What is attacked, as one differentiable function.

    Attributes:
        name: in tables.
        judged: whose classes count.
        ask: (images (B, 3, H, W) in [0, 1], seeds (B,) int64) -> logits or log probabilities (B, K); all its noise is a function of the
            seeds, and gradients flow.
        identity: what decides it beside the classifier, as JSON.
        multiple_of: image sides must be multiples of this.
        noisy: it draws noise; where not, its answers are no function of the seeds.
    """

    name: str
    judged: Judged
    ask: Callable[[Tensor, Tensor], Tensor]
    identity: Mapping[str, Any] = field(default_factory=dict)
    multiple_of: int = 1
    noisy: bool = True


def classifier(judged: Judged, name: str = "") -> Victim:
    """A classifier by itself."""
    return Victim(name=name or judged.name, judged=judged, ask=lambda images, _: judged(images), noisy=False)


def pipeline(judged: Judged, denoiser: Denoiser, time: int, *, reference_size: int | None = REFERENCE_SIZE, name: str = "") -> Victim:
    """Denoise, then classify: one DiffAug view of each image at one noise time.

    Args:
        denoiser: unconditional, in pixel space.
        time: of the reference schedule (ADM's 1,000 steps), scaled by size / reference_size as everywhere; see `noise_times.levels`.
    """
    method = DiffAug(denoiser, gradients=True)

    def ask(images: Tensor, seeds: Tensor) -> Tensor:
        found = levels(denoiser.schedule, [time], min(images.shape[-2:]), reference_size)
        alone = torch.ones_like(seeds)
        draw = DiffAugDraw(t=found.t.expand(len(images)), seed=seeds, among=alone, place=alone - 1)
        return judged(method.apply(images, draw))

    told = {"pipeline": "denoise, then classify", "time": time, "reference_size": reference_size, "denoiser": denoiser.fingerprint()}
    told |= {"denoiser_numbers": numbers_of(denoiser)}
    return Victim(name=name or f"{judged.name} behind t={time}", judged=judged, ask=ask, identity=told, multiple_of=denoiser.multiple_of)


def ensemble(judged: Judged, asked: Ensemble, name: str = "") -> Victim:
    """A test-time ensemble, attacked as the one classifier that it is.

    Args:
        judged: the classifier in it. asked: made with `judged.as_module()`; an early exit is not taken, since no gradient passes it.
    """
    told = {"ensemble": asked.settings, "denoiser_numbers": numbers_of(asked)}
    ask = lambda images, seeds: asked(images, seeds)  # noqa: E731  # a module called by its own name would hide what it is given
    return Victim(name=name or f"{judged.name} ensemble", judged=judged, ask=ask, identity=told, multiple_of=asked.multiple_of)


def losses(logits: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """(B,) what the attack raises, in float64 on the processor, so that confidence does not round the gradient to 0."""
    found, labels = logits.cpu().double(), labels.cpu()
    if loss == "cross_entropy":
        return F.cross_entropy(found, labels, reduction="none")
    own = found.gather(1, labels[:, None])[:, 0]
    return found.scatter(1, labels[:, None], -torch.inf).amax(1) - own


def gradient(victim: Victim, images: Tensor, labels: Tensor, seeds: Tensor, loss: Loss) -> Tensor:
    """The mean over draws of the loss's gradient in each image (expectation over transformation, arXiv 1802.00420).

    Args:
        images: (B, 3, H, W); labels: (B,); seeds: (draws, B) int64. A draw at a time, so memory does not grow with them.
    Returns:
        (B, 3, H, W).
    Raises:
        ModelError: the victim lets no gradient through.
    """
    total = torch.zeros_like(images)
    for row in seeds:
        with torch.enable_grad():
            asked = images.detach().requires_grad_()
            said = victim.ask(asked, row)
            if not said.requires_grad:
                raise ModelError(
                    f"{victim.name} lets no gradient through, and an attack without gradients would call it safe; "
                    "build it without no_grad (DiffAug: gradients=True)"
                )
            total += torch.autograd.grad(losses(said, labels.to(said.device), loss).sum(), asked)[0]
    return total / len(seeds)


@torch.no_grad()
def mean_loss(victim: Victim, images: Tensor, labels: Tensor, seeds: Tensor, loss: Loss) -> Tensor:
    """(B,) float64 over draws. Args as in `gradient`."""
    said = (victim.ask(images, row).cpu() for row in seeds)
    return torch.stack([losses(each, labels, loss) for each in said]).mean(0)


def project(images: Tensor, around: Tensor, norm: Norm, epsilon: float) -> Tensor:
    """Into the ball of radius epsilon around each image, then into [0, 1], which leads further into the ball."""
    offset = images - around
    if norm == "linf":
        offset = offset.clamp(-epsilon, epsilon)
    else:
        length = offset.flatten(1).norm(dim=1).clamp(min=1e-12)
        offset = offset * (epsilon / length).clamp(max=1).view(-1, 1, 1, 1)
    return (around + offset).clamp(0, 1)


def climb(images: Tensor, slope: Tensor, norm: Norm, step: float) -> Tensor:
    """A step of this length in the direction that is steepest in the norm; none where the slope is 0."""
    if norm == "linf":
        return images + step * slope.sign()
    length = slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return images + step * torch.where(length > 0, slope / length.clamp(min=torch.finfo(slope.dtype).tiny), 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbed:
    """images: (B, 3, H, W); loss: (B,) float64 at the end; flat: (B,) bool, where every gradient was exactly 0: an attack that never moved
    says nothing of the victim."""

    images: Tensor
    loss: Tensor
    flat: Tensor


def perturb(victim: Victim, images: Tensor, labels: Tensor, attack: Attack, seeds: Tensor) -> Perturbed:
    """The images that the attack ends at.

    Args:
        images: (B, 3, H, W) in [0, 1]; labels: (B,) int64 indices of the victim's classes; seeds: (B,) int64, of each image's starts and
            noise, so that neither order nor company changes what becomes of it.
    """
    best, loss = images.clone(), torch.full((len(images),), -torch.inf, dtype=torch.float64)
    flat, draws = torch.ones(len(images), dtype=torch.bool), attack.draws_for(victim)
    for restart in range(attack.restarts):
        now = images if restart == 0 else project(_start(images, seeds, restart, attack), images, attack.norm, attack.epsilon)
        for step in range(attack.steps):
            slope = gradient(victim, now, labels, _seeds(seeds, draws, restart, step), attack.loss)
            flat &= (slope.flatten(1) == 0).all(1).cpu()
            now = project(climb(now, slope, attack.norm, attack.step), images, attack.norm, attack.epsilon)
        # On the same noise for all restarts, and on other noise than their steps saw: the best of them is not the luckiest.
        reached = mean_loss(victim, now, labels, _seeds(seeds, draws, 0, attack.steps), attack.loss)
        better = reached > loss
        best = torch.where(better.to(best.device).view(-1, 1, 1, 1), now, best)
        loss = torch.where(better, reached, loss)
    return Perturbed(images=best.detach(), loss=loss, flat=flat)


def distance(images: Tensor, around: Tensor, norm: Norm) -> Tensor:
    """(B,) how far each image was moved."""
    offset = (images - around).flatten(1)
    length: Tensor = offset.abs().amax(1) if norm == "linf" else offset.norm(dim=1)
    return length


def _seeds(seeds: Tensor, draws: int, *key: int) -> Tensor:
    """(draws, B) int64."""
    return torch.tensor([[seed_of(seed, *key, draw) for seed in seeds.tolist()] for draw in range(draws)], dtype=torch.int64)


def _start(images: Tensor, seeds: Tensor, restart: int, attack: Attack) -> Tensor:
    """A random direction of the ball's surface (l2), or a random point of the cube (linf)."""
    made = []
    for seed in seeds.tolist():
        generator = noise_generator(seed_of(seed, "start", restart))
        made.append(torch.randn(images.shape[1:], generator=generator))
    offset: Tensor = torch.stack(made).to(images.device)
    if attack.norm == "linf":
        offset = torch.erf(offset / math.sqrt(2))  # uniform in (-1, 1)
    else:
        offset = offset / offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return images + attack.epsilon * offset
