"""How unsure classifiers are of what noise has destroyed: mean predictive entropy on one-step views against the noise time.

A classifier that knows what it does not know comes near log K where a view holds almost nothing of the image any more. Trained with such
views it does; others stay sure of themselves.

Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192, Fig. 2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.judged import Judged, check_models
from rediffuse.evaluation.kept import Kept, fingerprint, in_blocks, numbers_of
from rediffuse.evaluation.saved import Content, Saved
from rediffuse.evaluation.statistics import FEW, MIN_IMAGES, Interval, basis_of_runs, t_interval
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble, DiffAugSettings
from rediffuse.evaluation.test_time.ensembles import image_seeds

BLOCK = 64
"""Images that are kept together."""
CHUNK = 64
"""Views in one call of denoiser and classifiers."""
WHOLE = DiffAugSettings(step=37, t_max=999)
"""28 times from the raw image to t = 999, where almost nothing of it is left: a trace of its mean colour."""


def entropy(logits: Tensor) -> Tensor:
    """-sum_k p_k log p_k of each row, in nats, (B, K) -> (B,) float64; at most log K."""
    log = logits.double().log_softmax(1)
    return -(log.exp() * log).sum(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class EntropyCurve(Saved):
    """What models said of views of the same images at growing noise.

    Attributes:
        times: of the reference schedule (ADM's 1,000 steps); 0 is the raw image. sigma: that of the views, on [-1, 1].
        models: names; classes: how many each knows.
        entropies: (models, images, times) nats. right: the same shape, whether the view is still named rightly; None without labels.
        seconds: wall time of this call.
    """

    times: tuple[int, ...]
    sigma: tuple[float, ...]
    models: tuple[str, ...]
    classes: tuple[int, ...]
    entropies: NDArray[np.float32]
    right: NDArray[np.bool_] | None = None
    seconds: float = 0.0

    @property
    def images(self) -> int:
        return int(self.entropies.shape[1])

    def mean(self, model: str) -> tuple[Interval, ...]:
        """Mean entropy at each time, with the t interval over images."""
        return tuple(_over_images(column) for column in self.entropies[self._place(model)].T)

    def difference(self, model: str, over: str) -> tuple[Interval, ...]:
        """Mean entropy of one model minus that of another at each time, paired by image."""
        ours, theirs = self.entropies[self._place(model)], self.entropies[self._place(over)]
        return tuple(_over_images(column) for column in (ours - theirs).T)

    def share_of_maximum(self, model: str) -> float:
        """Entropy at the last time over log K: 1 is as unsure as can be. A little below 1 can be right, for what the view still holds."""
        place = self._place(model)
        return float(self.entropies[place, :, -1].mean()) / math.log(self.classes[place])

    def table(self) -> list[dict[str, Any]]:
        """A row for each model and time."""
        rows: list[dict[str, Any]] = []
        for place, model in enumerate(self.models):
            for at, (t, sigma, found) in enumerate(zip(self.times, self.sigma, self.mean(model), strict=True)):
                row = {"model": model, "t": t, "sigma": sigma, "entropy": found.value, "low": found.low, "high": found.high}
                row |= {"maximum": math.log(self.classes[place])}
                rows.append(row if self.right is None else {**row, "accuracy": float(self.right[place, :, at].mean())})
        return rows

    def to_json(self) -> dict[str, Any]:
        """Table and headline figures, and the paired difference of each two models, the earlier one minus the later."""
        shares = {model: self.share_of_maximum(model) for model in self.models}
        differences = [
            {"model": model, "over": over, "t": t, **gap.to_json()}
            for model, over in combinations(self.models, 2)
            for t, gap in zip(self.times, self.difference(model, over), strict=True)
        ]
        told = {"images": self.images, "seconds": self.seconds, "share_of_maximum": shares}
        return {**told, "table": self.table(), "differences": differences}

    def content(self) -> Content:
        """A row for each model and time; headline share_of_maximum (of several models MODEL_share_of_maximum)."""
        headline = {
            f"{model}_share_of_maximum" if len(self.models) > 1 else "share_of_maximum": self.share_of_maximum(model)
            for model in self.models
        }
        said = f"{self.images} images; entropy in nats; times of the reference schedule"
        return Content(headline=headline, rows=self.table(), seconds=self.seconds, notes=[said])

    def _place(self, model: str) -> int:
        if model not in self.models:
            raise ConfigError(f"no entropies of {model!r}; there are {', '.join(self.models)}")
        return self.models.index(model)


def entropy_curve(
    models: Judged | Sequence[Judged],
    images: ImageSet,
    denoiser: Denoiser,
    settings: DiffAugSettings = WHOLE,
    *,
    size: int,
    fit: str = "pad",
    seed: int = 0,
    chunk: int = CHUNK,
    keep: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EntropyCurve:
    """Mean predictive entropy on one-step views against t; every view is made once for all models.

    The views are those of `DiffAugEnsemble` with the same seed: noise is a function of seed, image and time.

    Args:
        models: one classifier or several.
        images: with or without labels; with all of them labelled, accuracy at each time is a by-product.
        denoiser: unconditional, in pixel space.
        settings: times and reference size; the rest of it is not used.
        size: side in pixels, a multiple of the denoiser's. fit: how other shapes become that square.
        chunk: views in one call.
        keep: folder for finished blocks; the same call continues from it. `kept.forget` removes it.
        progress: called with (images done, images in all).
    Raises:
        ConfigError: models of one name; a denoiser, size or folder that does not fit.
        DataError: no images, a label that a model does not know.
        ModelError: logits that are NaN; finished blocks are kept.
    """
    began = time.perf_counter()
    judged = check_models(models)
    if chunk < 1:
        raise ConfigError(f"chunk is the number of views in one call and must be at least 1, got {chunk}")
    if not len(images):
        raise DataError(f"{images.name} holds no images")
    maker = DiffAugEnsemble(nn.Identity(), denoiser, settings, seed=seed)
    shape = Fit(mode=fit, size=size, multiple_of=denoiser.multiple_of)
    labelled = all(label is not None for label in images.labels)
    truth = [model.truth(images) for model in judged] if labelled else None
    identity = {"kind": "entropies", "images": fingerprint(images), "size": size, "fit": fit, "views": maker.settings}
    identity |= {"denoiser_numbers": numbers_of(denoiser)}
    kept = None if keep is None else Kept(keep, {**identity, "models": {model.name: model.identity() for model in judged}})
    found = _all(judged, images, maker, shape, chunk, kept, progress)
    right = None if truth is None else (found["decisions"] == torch.stack(truth)[:, :, None]).numpy()
    return EntropyCurve(
        times=settings.times,
        sigma=tuple(maker.levels(size).sigma.tolist()),
        models=tuple(model.name for model in judged),
        classes=tuple(len(model.classes) for model in judged),
        entropies=found["entropies"].numpy(),
        right=right,
        seconds=time.perf_counter() - began,
    )


def _all(
    judged: Sequence[Judged],
    images: ImageSet,
    maker: DiffAugEnsemble,
    shape: Fit,
    chunk: int,
    kept: Kept | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Tensor]:
    """entropies (models, images, times) float32 and decisions int64, of all images."""
    blocks = []
    for rows, block in in_blocks(len(images), BLOCK, lambda rows: _block(judged, images[rows], maker, shape, chunk), kept):
        blocks.append(block)
        if progress is not None:
            progress(rows.stop, len(images))
    return {
        name: torch.stack([torch.cat([block[f"{name} {model.name}"] for block in blocks]) for model in judged])
        for name in ("entropies", "decisions")
    }


@torch.no_grad()
def _block(judged: Sequence[Judged], part: ImageSet, maker: DiffAugEnsemble, shape: Fit, chunk: int) -> dict[str, Tensor]:
    """ "entropies MODEL" and "decisions MODEL", (images, times): by name, so that models may be given in another order."""
    pictures = torch.stack([shape.to_model(example.image)[0] for example in part])
    seeds, times = image_seeds(maker.seed, part.digests), len(maker.members)
    row, member = torch.arange(len(part)).repeat_interleave(times), torch.arange(times).repeat(len(part))
    entropies: list[list[Tensor]] = [[] for _ in judged]
    decisions: list[list[Tensor]] = [[] for _ in judged]
    for own, level in zip(row.split(chunk), member.split(chunk), strict=True):
        views = maker.views(pictures[own], level, seeds[own])
        for place, model in enumerate(judged):
            logits = model(views).cpu()
            entropies[place].append(entropy(logits).float())
            decisions[place].append(logits.argmax(1))
    return {
        f"{name} {model.name}": torch.cat(each).view(len(part), times)
        for name, found in (("entropies", entropies), ("decisions", decisions))
        for model, each in zip(judged, found, strict=True)
    }


def _over_images(values: NDArray[np.float32]) -> Interval:
    found = t_interval(values.tolist())
    if values.size < MIN_IMAGES:
        return Interval(value=found.value, basis=FEW)
    return Interval(value=found.value, low=found.low, high=found.high, basis=basis_of_runs(1))
