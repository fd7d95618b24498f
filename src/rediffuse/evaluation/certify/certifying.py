"""Certificates of a whole set of images: image by image on the disk, full calls on the device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.data.names import folder_names
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.certify.bounds import ceiling, decide
from rediffuse.evaluation.certify.result import Certified, Series
from rediffuse.evaluation.certify.rows import Certificate
from rediffuse.evaluation.certify.smoothing import Draws, Smoother, Smoothing
from rediffuse.evaluation.certify.table import Table
from rediffuse.evaluation.judged import Judged, check_models
from rediffuse.evaluation.kept import claim, fingerprint, numbers_of
from rediffuse.lock import Lock

CHUNK = 256
"""Draws in one call of denoiser and classifiers, at most, on an accelerator."""
PROCESSOR_CHUNK = 64
"""On a processor, where larger calls cost as much again: glibc hands blocks of more than 32 MiB back at once, so that the kernel has to map
the memory of every layer anew."""
LOCK = "certificates-{}.lock"
Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(selection, estimation), each (images, K)."""


def certify(
    models: Judged | Sequence[Judged],
    images: ImageSet,
    denoiser: Denoiser | None = None,
    smoothing: Smoothing | None = None,
    *,
    size: int,
    fit: str = "pad",
    chunk: int | None = None,
    keep: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Certified:
    """Radii within which no perturbation changes what smoothed classifiers say, and how often they are right there.

    Choose it to show what a classifier is worth against any adversary of bounded L2 norm. Every draw is denoised once and classified by
    all models, so that further models cost little and are compared on the same noise.

    Args:
        models: one classifier or several; each finds the labels by name.
        images: labelled; the published ImageNet protocol takes every 50th of the validation images.
        denoiser: an unconditional one in pixel space, used at the fixed t*(sigma); None smoothes plainly, for classifiers trained on noise.
        smoothing: sigmas, numbers of draws, alpha, seed.
        size: side in pixels of the tensor that is certified, a multiple of the denoiser's.
        fit: how other shapes become that square, before the noise.
        chunk: draws in one call, at most; default: 64 on a processor, 256 elsewhere.
        keep: folder of one table a model and sigma, in the published format, written image by image, with its seal beside it. The same
            call continues from it with the same noise; another is refused, and so is a table without its seal. Further sigmas may join
            later, also from other processes at the same time. A table that is missing or shorter is filled again, and its model alone
            is asked for it.
        progress: called with (images done, images in all), counting an image once for each sigma.
    Raises:
        ConfigError: a denoiser, size, sigma or folder that does not fit.
        DataError: no images, images without labels that the models know, a table of another run or changed since.
        ModelError: logits or denoised images that are NaN; certificates of earlier images are kept.
        PlanError: another process is at one of these sigmas in the folder.
    Reference: Cohen et al., ICML 2019, arXiv 1902.02918; Carlini et al., ICLR 2023, arXiv 2206.10550.
    """
    judged, plan = check_models(models), smoothing or Smoothing()
    if not len(images):
        raise DataError(f"{images.name} holds no images to certify")
    device = judged[0].device if denoiser is None else denoiser.device
    chunk = default_chunk(device) if chunk is None else chunk
    if chunk < 1:
        raise ConfigError(f"chunk is the number of draws in one call and must be at least 1, got {chunk}")
    shape = Fit(mode=fit, size=size, multiple_of=1 if denoiser is None else denoiser.multiple_of)
    smoothers = [Smoother(denoiser, sigma) for sigma in plan.sigmas]  # all are checked before the first one works
    truth = [model.truth(images).tolist() for model in judged]
    work = _Work(judged=judged, truth=truth, images=images, plan=plan, shape=shape, chunk=chunk, device=device)
    home = None if keep is None else Path(keep)
    identity = work.identity(denoiser)
    if home is not None:
        claim(home, identity)
    with ExitStack() as locks:  # two processes at one sigma would mix their lines
        for file in [] if home is None else [home / LOCK.format(sigma) for sigma in plan.sigmas]:
            locks.enter_context(Lock(file, fix=f"remove {file}"))
        series = work.series(smoothers, home, json.dumps(identity, sort_keys=True), progress)
    kind = "plain" if denoiser is None else f"{type(denoiser).__name__} {denoiser.fingerprint()[:12]}"
    names = tuple(model.name for model in judged)
    return Certified(smoothing=plan, smoother=kind, images=len(images), models=names, series=tuple(series))


def default_chunk(device: torch.device) -> int:
    """Draws in one call where nobody says."""
    return PROCESSOR_CHUNK if device.type == "cpu" else CHUNK


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What `certify` was given, checked. truth: the labels of each model."""

    judged: Sequence[Judged]
    truth: Sequence[Sequence[int]]
    images: ImageSet
    plan: Smoothing
    shape: Fit
    chunk: int
    device: torch.device

    def series(
        self, smoothers: Sequence[Smoother], home: Path | None, identity: str, progress: Callable[[int, int], None] | None
    ) -> list[Series]:
        """One a sigma and model."""
        found: list[Series] = []
        for order, smoother in enumerate(smoothers):

            def tick(done: int, order: int = order) -> None:
                if progress is not None:
                    progress(order * len(self.images) + done, len(smoothers) * len(self.images))

            rows = self.rows(smoother, None if home is None else self._tables(home, smoother.sigma, identity), tick)
            top = ceiling(smoother.sigma, self.plan.draws, self.plan.alpha)
            found += [
                Series(model=model.name, sigma=smoother.sigma, ceiling=top, rows=tuple(own))
                for model, own in zip(self.judged, rows, strict=True)
            ]
        return found

    def rows(self, smoother: Smoother, tables: Sequence[Table] | None, tick: Callable[[int], None]) -> list[list[Certificate]]:
        """The certificates of each model at one sigma, those first that lie in the folder."""
        # Images that share calls: a function of the plan alone, so that a resumed run makes the calls that were missing, and no others.
        group = max(1, self.chunk // self.plan.total)
        rows: list[list[Certificate]] = [[] for _ in self.judged] if tables is None else self._left(tables, group)
        done = min(map(len, rows))
        tick(done)
        for start in range(done, len(self.images), group):
            lacking = [place for place, own in enumerate(rows) if len(own) <= start]  # all, unless a table was lost or a kill fell between
            fresh = self._fresh(lacking, start, self.images[start : start + group], smoother)
            for place, own in zip(lacking, fresh, strict=True):
                rows[place] += own
                if tables is not None:
                    tables[place].append(own)
            tick(min(map(len, rows)))
        return rows

    def _tables(self, home: Path, sigma: float, identity: str) -> list[Table]:
        names = [model.name for model in self.judged]
        return [
            Table(home / f"{folder}-{sigma}.tsv", f"{identity} {name} {sigma}")
            for folder, name in zip(folder_names(names), names, strict=True)
        ]

    def _left(self, tables: Sequence[Table], group: int) -> list[list[Certificate]]:
        """What each table holds of whole groups; what else it holds is cut off. A shorter table takes nothing from the others."""
        found = [table.left(labels) for table, labels in zip(tables, self.truth, strict=True)]
        left = [each if len(each) == len(self.images) else each[: len(each) // group * group] for each in found]
        for table, each in zip(tables, left, strict=True):
            table.rewrite(each)
        return left

    def _fresh(self, places: Sequence[int], start: int, part: ImageSet, smoother: Smoother) -> list[list[Certificate]]:
        """New certificates for a group of images, of the models at these places. Draws are a function of the image, not of who asks."""
        began = time.perf_counter()
        pictures = torch.stack([self.shape.to_model(example.image)[0] for example in part]).to(self.device)
        counts = count([self.judged[place] for place in places], pictures, part.digests, smoother, self.plan, self.chunk)
        took = (time.perf_counter() - began) / len(part)
        made = []
        for place, (selection, estimation) in zip(places, counts, strict=True):
            labels = self.truth[place][start : start + len(part)]
            found = zip(labels, *decide(selection, estimation, smoother.sigma, self.plan.alpha), strict=True)
            made.append(
                [
                    Certificate(index=start + k, label=label, predict=int(predict), radius=float(reach), seconds=took)
                    for k, (label, predict, reach) in enumerate(found)
                ]
            )
        return made

    def identity(self, denoiser: Denoiser | None) -> dict[str, Any]:
        """All that decides a certificate but its sigma, which stands in the table's name."""
        told = self.plan.to_json()
        del told["sigmas"]
        return {
            "kind": "certificates",
            "images": fingerprint(self.images),
            "size": self.shape.size,
            "fit": self.shape.mode,
            "denoiser": "none" if denoiser is None else denoiser.fingerprint(),
            "denoiser_numbers": [] if denoiser is None else numbers_of(denoiser),
            "models": {model.name: model.identity() for model in self.judged},
            **told,
        }


@torch.no_grad()
def count(
    judged: Sequence[Judged], pictures: Tensor, keys: Sequence[str], smoother: Smoother, plan: Smoothing, chunk: int = CHUNK
) -> list[Counts]:
    """How often each model names each class: of an image's draws the first N0 select, the next N estimate.

    Args:
        pictures: (B, 3, H, W) in [0, 1], as they are certified.
        keys: what the noise of each picture is a function of.
        chunk: draws in one call, at most; draws of all pictures share calls, all of nearly one size.
    """
    streams = [Draws(plan.seed, key, pictures.shape[1:]) for key in keys]
    everything = len(pictures) * plan.total
    calls = -(-everything // chunk)
    ends = [everything * k // calls for k in range(calls + 1)]
    sums = [np.zeros(len(pictures) * 2 * len(model.classes), dtype=np.int64) for model in judged]

    def draw(first: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """(picture, stage, noise) of a run of draws."""
        number = torch.arange(first, end)
        owner = number // plan.total
        taken = owner.bincount(minlength=len(streams)).tolist()
        noise = torch.cat([stream.take(many) for stream, many in zip(streams, taken, strict=True) if many])
        return owner, (number % plan.total >= plan.selection).long(), noise

    upcoming = draw(ends[0], ends[1])
    for k in range(calls):
        owner, stage, noise = upcoming
        views = smoother(pictures[owner.to(pictures.device)], noise.to(pictures.device))
        if k + 1 < calls:
            upcoming = draw(ends[k + 1], ends[k + 2])  # while an accelerator is at work
        if not bool(views.isfinite().all()):
            raise ModelError("the denoiser gives images that are NaN or infinite; its weights or its numbers (--dtype float32) are broken")
        for model, counted in zip(judged, sums, strict=True):
            named = model(views).argmax(1).cpu()
            slots = (owner * 2 + stage) * len(model.classes) + named
            counted += slots.bincount(minlength=len(counted)).numpy()
    shaped = [counted.reshape(len(pictures), 2, -1) for counted in sums]
    return [(each[:, 0], each[:, 1]) for each in shaped]
