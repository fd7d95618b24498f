"""Certificate draws per second against a plain loop in the published manner.

    python -m benchmarks.certify --model cifar10-32 --out results

Arms, each with the same images, N0, N and sigma; a draw counts once for each classifier that names it:
    together   `certify` with all classifiers: each draw is denoised once, draws of several images share calls.
    float32    the same with the denoiser's trunk in float32.
    alone      `certify` with one classifier after another.
    published  the loop of the denoised smoothing scripts, written from its description: one classifier after another, one image at a
               time, N0 draws and then N in batches of 400, float32, noise of the schedule's own level, x0_hat clamped.
One process; the arms take turns, each repeat begins with another, and the median ratio counts.
Reference: Carlini et al., ICLR 2023, arXiv 2206.10550; Cohen et al., ICML 2019, arXiv 1902.02918.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.common import Measured, options, ratio, run, turns
from benchmarks.machine import describe
from benchmarks.precision import opened
from torch import Tensor

from rediffuse.data.open import open_images
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.precision import resolve_device
from rediffuse.evaluation.certify.bounds import decide, noise_time
from rediffuse.evaluation.certify.certifying import certify, default_chunk
from rediffuse.evaluation.certify.smoothing import Smoothing
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.results import render_table
from rediffuse.training.backbones import open_backbone

BATCH = 400
"""Of the published loop."""
Answers = list[list[tuple[int, float]]]
"""(class, radius) of each image, for each classifier."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every arm does."""

    models: Sequence[Judged]
    images: ImageSet
    size: int
    plan: Smoothing
    chunk: int

    @property
    def draws(self) -> int:
        return len(self.models) * len(self.images) * self.plan.total


def ours(work: Work, denoiser: PixelDenoiser, models: Sequence[Judged]) -> Answers:
    found = certify(models, work.images, denoiser, work.plan, size=work.size, chunk=work.chunk)
    return [[(row.predict, row.radius) for row in series.rows] for series in found.series]


def alone(work: Work, denoiser: PixelDenoiser) -> Answers:
    return [answers for model in work.models for answers in ours(work, denoiser, [model])]


@torch.no_grad()
def published(work: Work, denoiser: PixelDenoiser) -> Answers:
    """denoiser: in float32."""
    sigma = work.plan.sigmas[0]
    t, generator = noise_time(denoiser.schedule, sigma), torch.Generator(denoiser.device).manual_seed(0)
    answers: Answers = []
    for model in work.models:
        answers.append([])
        for image in work.images.fitted(work.size, mode="squash"):
            picture = image.to(denoiser.device)
            selection, estimation = (_counts(model, denoiser, picture, t, n, generator) for n in (work.plan.selection, work.plan.draws))
            classes, radii = decide(selection[None].numpy(), estimation[None].numpy(), sigma, work.plan.alpha)
            answers[-1].append((int(classes[0]), float(radii[0])))
    return answers


def _counts(model: Judged, denoiser: PixelDenoiser, picture: Tensor, t: int, draws: int, generator: torch.Generator) -> Tensor:
    counts = torch.zeros(len(model.classes), dtype=torch.int64)
    for start in range(0, draws, BATCH):
        batch = picture.repeat(min(BATCH, draws - start), 1, 1, 1)
        times = torch.full((len(batch),), t, device=batch.device)
        noise = torch.randn(batch.shape, generator=generator, device=batch.device)
        views = denoiser(denoiser.schedule.add_noise(2 * batch - 1, noise, times), times).clamp(-1, 1)
        counts += model((views + 1) / 2).argmax(1).cpu().bincount(minlength=len(counts))
    return counts


def measure(arms: Mapping[str, Callable[[], Answers]], work: Work, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """A row an arm; seconds are the median over the repeats."""
    for arm in arms.values():
        arm()  # warms up
    seconds, answers = turns(arms, repeats, device, tell=True)
    return [
        {
            "arm": name,
            "classifiers": len(work.models),
            "images": len(work.images),
            "draws": work.draws,
            "seconds": statistics.median(each),
            "draws_per_second": work.draws / statistics.median(each),
            "all_seconds": each,
            "same_class": agreement(answers[name], answers["published"]),
        }
        for name, each in seconds.items()
    ]


def agreement(one: Answers, two: Answers) -> float:
    """Share of images with the same class; abstaining is one."""
    pairs = [(a[0], b[0]) for mine, theirs in zip(one, two, strict=True) for a, b in zip(mine, theirs, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def classifiers(specs: Sequence[str], images: ImageSet, size: int, device: torch.device) -> list[Judged]:
    """Those named, or two networks from random weights: what they weigh does not depend on what they know."""
    if specs:
        return [Judged.open(spec, device=device) for spec in specs]
    made = [open_backbone("cifar-resnet", images.classes, seed=seed, size=size).to(device) for seed in (0, 1)]
    return [Judged(network, images.classes, name=f"random {seed}") for seed, network in enumerate(made)]


def benchmark(given: argparse.Namespace) -> Measured:
    device = resolve_device(given.device)
    fast, exact = opened(given.model, given.dtype, device), opened(given.model, "float32", device)
    images = open_images(given.data, split="test")[: given.images]
    size, chunk = given.size or exact.size or 32, given.chunk or default_chunk(device)
    plan = Smoothing(sigmas=(given.sigma,), selection=given.selection, draws=given.draws)
    work = Work(models=classifiers(given.classifiers, images, size, device), images=images, size=size, plan=plan, chunk=chunk)
    print(describe(device))
    arms: dict[str, Callable[[], Answers]] = {
        "together": lambda: ours(work, fast, work.models),
        "float32": lambda: ours(work, exact, work.models),
        "alone": lambda: alone(work, fast),
        "published": lambda: published(work, exact),
    }
    rows = measure(arms, work, given.repeats, device)
    seconds = {row["arm"]: row["all_seconds"] for row in rows}
    headline = {
        "certify_speedup": ratio(seconds["published"], seconds["together"]),
        "certify_speedup_float32": ratio(seconds["published"], seconds["float32"]),
        "certify_speedup_one_classifier": ratio(seconds["published"], seconds["alone"]),
    }
    print(render_table(rows, ["arm", "classifiers", "images", "seconds", "draws_per_second", "same_class"]))
    memory = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")]
    notes = [
        f"sigma {given.sigma:g}, N0 = {plan.selection}, N = {plan.draws}, {size} px, at most {chunk} draws a call",
        f"trunk of the denoiser: {str(fast.dtype).removeprefix('torch.')}",
        f"settings of the allocator: {', '.join(memory) or 'none'}",
    ]
    return Measured(name="bench_certify", headline=headline, rows=rows, device=str(device), notes=notes)


def parser() -> argparse.ArgumentParser:
    made = options(__doc__, repeats=3)
    made.add_argument("--model", default="random", help="bundled name, file or folder of a pixel model, or `random`")
    made.add_argument("--dtype", default="bfloat16", help="numbers of the denoiser's trunk in the first and third arm")
    made.add_argument("--classifiers", nargs="*", default=(), help="folders or names; two with random weights by default")
    made.add_argument("--data", default="digits", help="images: digits, or anything that rediffuse opens")
    made.add_argument("--images", type=int, default=4)
    made.add_argument("--size", type=int, help="side in pixels; that of the denoiser by default")
    made.add_argument("--sigma", type=float, default=0.25)
    made.add_argument("--selection", type=int, default=100)
    made.add_argument("--draws", type=int, default=1000)
    made.add_argument("--chunk", type=int, help="most draws in a call of `certify`; its own choice by default")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    return run("certify", benchmark, parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
