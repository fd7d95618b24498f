"""Accuracy on folders that show some of a model's classes: ImageNet-R, -A, -Sketch, Stylized-ImageNet, ImageNet-D.

Classes that a folder does not show cannot be answers: their logits are masked. Which ones it shows, its own class folders say, or, where a
part of ImageNet-R or -A is judged, the list of the whole set. A folder may stand for several classes, as those of ImageNet-D do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.judged import Judged, batches, check_models
from rediffuse.evaluation.kept import Kept, fingerprint, in_blocks
from rediffuse.evaluation.matching import match_classes, spelled_classes
from rediffuse.evaluation.saved import Content, Saved
from rediffuse.evaluation.statistics import Interval, paired_bootstrap, share

BLOCK = 1024
"""Images whose outcomes are kept together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SubsetResult(Saved):
    """What models make of a folder of some of their classes.

    Attributes:
        models: names.
        right: (M, N), whether each image is named rightly among the classes that can be answers.
        classes: how many can be.
        of: how many each model knows.
    """

    name: str
    models: tuple[str, ...]
    right: NDArray[np.bool_]
    classes: int
    of: tuple[int, ...]
    seconds: float = 0.0
    notes: Sequence[str] = field(default_factory=tuple)

    def accuracy(self, model: str | None = None) -> Interval:
        """Share of images named rightly, with the exact interval over images."""
        return share(self.right[self._row(model)])

    def difference(self, ours: str, theirs: str) -> Interval:
        """Paired, over images."""
        return paired_bootstrap(self.right[[self._row(ours)]], self.right[[self._row(theirs)]], None)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "images": int(self.right.shape[1]),
            "classes": self.classes,
            "rows": self.rows(),
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for model, known in zip(self.models, self.of, strict=True):
            found = self.accuracy(model)
            rows.append(
                {"model": model, "accuracy": found.value, "low": found.low, "high": found.high, "classes": self.classes, "of": known}
            )
        return rows

    def content(self) -> Content:
        """An accuracy a model, and the first one's difference to each of the others."""
        headline = {f"accuracy_{model}": self.accuracy(model) for model in self.models}
        headline |= {f"gain_over_{model}": self.difference(self.models[0], model) for model in self.models[1:]}
        return Content(headline=headline, rows=self.rows(), seconds=self.seconds, notes=self.notes)

    def _row(self, model: str | None) -> int:
        if model is None and len(self.models) == 1:
            return 0
        if model not in self.models:
            raise ConfigError(f"model must be one of {', '.join(self.models)}, got {model!r}")
        return self.models.index(model)


def subset_accuracy(
    models: Judged | Sequence[Judged],
    images: ImageSet,
    *,
    size: int,
    fit: str = "crop",
    spelled: Sequence[str] | None = None,
    among: Sequence[str] | None = None,
    means: Mapping[str, Sequence[str]] | None = None,
    keep: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SubsetResult:
    """Accuracy where only the classes that the images show can be answers; every batch is judged by all models.

    Args:
        models: one classifier or several, of different names.
        images: labelled, such as `data.folder.folder("imagenet-r")`.
        size, fit: side that pictures are fitted to, and how; see `data.geometry.Fit`. Published figures have 224 and "crop:0.875".
        spelled: the models' classes as the folders are called, in label order, where names do not agree; the ids of ImageNet are known.
        among: what can be answers, as folders are called; None takes what the images show. `imagenet.known_subset("imagenet-r")` where
            they are a part of that set, `imagenet.wnids()` to mask nothing.
        means: the classes that a folder stands for, any of which is right; one that is not there stands for the class of its name.
            `imagenet.imagenet_d()` for ImageNet-D.
        keep: folder for finished blocks; the same call again continues from it. The caller removes it (`kept.forget`).
        progress: called with (images done, images in all).
    Raises:
        ConfigError: `spelled` with another number of names than classes, or with one twice; `means` with no class for a folder.
        DataError: an image without a label, folders that match no class of a model, or several, or that are not `among` the answers.
    """
    judged = check_models(models)
    asked, told = _Answers.of(images, among, means), images.name if among is None else "among"
    known = [spelled_classes(model.classes, spelled, model.name) for model in judged]
    columns = [torch.tensor(match_classes(asked.names, own, model.name, told)) for own, model in zip(known, judged, strict=True)]
    kept = None
    if keep is not None:
        identity = {"kind": "subset", "images": fingerprint(images), "size": size, "fit": fit, "spelled": list(spelled or ())}
        identity |= {} if among is None else {"among": asked.names}
        identity |= {} if means is None else {"means": {name: list(own) for name, own in means.items()}}
        kept = Kept(keep, {**identity, "models": {model.name: model.identity() for model in judged}})
    began, parts = time.perf_counter(), []

    def judge(rows: slice) -> dict[str, Tensor]:
        return _judge(judged, columns, batches(images[rows], size=size, fit=fit), asked.right(rows))

    for rows, right in in_blocks(len(images), BLOCK, judge, kept):
        parts.append(torch.stack([right[model.name] for model in judged]))
        if progress is not None:
            progress(rows.stop, len(images))
    return SubsetResult(
        name=images.name,
        models=tuple(model.name for model in judged),
        right=torch.cat(parts, dim=1).bool().numpy(),
        classes=len(asked.names),
        of=tuple(len(model.classes) for model in judged),
        seconds=time.perf_counter() - began,
        notes=(*asked.notes(judged, "the folder shows" if among is None else "were named"), _fitted(Fit(mode=fit, size=size))),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answers:
    """names: what can be answers; labels: (N,) of each image, among the S that are shown; allowed: (S, A), which answers each may have."""

    names: list[str]
    labels: Tensor
    allowed: Tensor

    @classmethod
    def of(cls, images: ImageSet, among: Sequence[str] | None, means: Mapping[str, Sequence[str]] | None) -> _Answers:
        shown = sorted({label for label in images.labels if label is not None})
        if not len(images) or len(shown if among is None else among) < 2 or None in images.labels:
            raise DataError(f"{images.name} must hold labelled images of at least two classes")
        meant = {label: _meaning(images.classes[label], means or {}) for label in shown}
        names = list(dict.fromkeys(name for own in meant.values() for name in own)) if among is None else list(among)
        place = {name: number for number, name in enumerate(names)}
        allowed = torch.zeros(len(shown), len(names), dtype=torch.bool)
        for row, (label, own) in enumerate(meant.items()):
            if odd := [name for name in own if name not in place]:
                told = f"{images.classes[label]!r}" + ("" if odd[0] == images.classes[label] else f", which means {odd[0]!r}")
                raise DataError(f"{images.name} shows {told}, which is not among the {len(names)} classes that can be answers; add it")
            allowed[row, [place[name] for name in own]] = True
        row_of = {label: row for row, label in enumerate(shown)}
        return cls(names=names, labels=torch.tensor([row_of[label] for label in images.labels if label is not None]), allowed=allowed)

    def right(self, rows: slice) -> Tensor:
        """(rows, A), whether each answer is right for each image."""
        return self.allowed[self.labels[rows]]

    def notes(self, models: Sequence[Judged], which: str) -> tuple[str, ...]:
        masked = any(len(model.classes) > len(self.names) for model in models)
        several = int((self.allowed.sum(dim=1) > 1).sum())
        notes = (f"answers are the {len(self.names)} classes that {which}; {'others are' if masked else 'none is'} masked",)
        return (*notes, f"{several} of {len(self.allowed)} folders stand for several classes, any of which is right") if several else notes


def _meaning(folder: str, means: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    own = means.get(folder, (folder,))
    if isinstance(own, str) or not own:
        raise ConfigError(f"means must list the classes that {folder!r} stands for, got {own!r}; leave it out where it is a class itself")
    return tuple(own)


def _fitted(shape: Fit) -> str:
    """A note of how pictures become squares: figures are comparable only where that is alike."""
    if shape.kind == "crop":
        return f"pictures: the short side scaled to {shape.short_side} px, the centre {shape.size} cut out"
    return f"pictures: {shape.mode} to {shape.size} px"


def _judge(
    models: Sequence[Judged], columns: Sequence[Tensor], pictures: Iterable[tuple[list[int], Tensor]], right: Tensor
) -> dict[str, Tensor]:
    """(N,) uint8 of each model. pictures: of `batches`; right: (N, A)."""
    parts = []
    for rows, part in pictures:
        answers = [model.logits(part)[:, own].argmax(dim=1) for model, own in zip(models, columns, strict=True)]
        parts.append(torch.stack([right[rows, answer] for answer in answers]).to(torch.uint8))
    return {model.name: own for model, own in zip(models, torch.cat(parts, dim=1), strict=True)}
