"""Accuracy under corruptions: each corrupted batch is made once and judged by every model, so that models are compared in pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.corruptions.constants import COMMON, SEVERITIES, check_names
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.corruptions.sources import Corrupted, Live
from rediffuse.evaluation.judged import Judged, check_models
from rediffuse.evaluation.kept import Kept

Progress = Callable[[int, int], None]


def corruption_accuracy(
    models: Judged | Sequence[Judged],
    images: ImageSet | Corrupted,
    *,
    corruptions: Sequence[str] = COMMON,
    severities: Sequence[int] = SEVERITIES,
    size: int | None = None,
    batch: int = 256,
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> CorruptionResult:
    """What is left of one model's accuracy, or of several's, under the corruptions of ImageNet-C.

    Choose it with clean pictures for any data; with `published.CifarC` or `published.ImageNetC` for figures on the published files.

    Args:
        models: one classifier, or several of different names.
        images: clean labelled pictures (`sources.Live` for another seed, fit or frost), or a source of corrupted ones.
        corruptions, severities: what to measure; the fifteen and five of the paper.
        size: of clean pictures, the side that they are fitted to; None takes the side that all have.
        batch: pictures made and judged at once; it changes no corrupted picture.
        keep: folder for the outcomes of finished pairs of corruption and severity; the same call again continues from it. The caller
            removes it (`kept.forget`).
        progress: called with (pictures judged, pictures in all), each once for each corruption and severity.
    Raises:
        ConfigError: an unknown corruption or severity, one that the source lacks, what is kept belongs to another call.
        DataError: pictures that are not square, too small or without labels; classes that a model does not know.
    Reference: Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261, section 4.
    """
    judged, source = check_models(models), _source(images, size)
    pairs = _pairs(source, corruptions, severities)
    if batch < 1:
        raise ConfigError(f"batch must be at least 1, got {batch}")
    truths = [source.truth(model) for model in judged]
    kept = None
    if keep is not None:
        kept = Kept(keep, {"kind": "corruptions", **source.identity(), "models": {model.name: model.identity() for model in judged}})
    began, total = time.perf_counter(), (len(pairs) + 1) * len(source)
    clean = _block(kept, "clean", judged, truths, lambda: source.clean(batch), _counted(progress, 0, total))
    right = np.empty((len(judged), len(corruptions), len(severities), len(source)), dtype=np.bool_)
    for place, (name, severity) in enumerate(pairs):
        given = partial(source.under, name, severity, batch)
        block = _block(kept, f"{name}-{severity}", judged, truths, given, _counted(progress, (place + 1) * len(source), total))
        right[:, corruptions.index(name), severities.index(severity)] = _there(block).numpy()
    return CorruptionResult(
        name=source.name,
        models=tuple(model.name for model in judged),
        corruptions=tuple(corruptions),
        severities=tuple(severities),
        right=right,
        clean=None if clean is None else clean.bool().numpy(),
        comparable=tuple(source.comparable(name) for name in corruptions),
        side=source.side,
        seconds=time.perf_counter() - began,
        notes=source.notes,
    )


def _source(images: ImageSet | Corrupted, size: int | None) -> Corrupted:
    if isinstance(images, ImageSet):
        return Live(images, size=size)
    if size is not None:
        raise ConfigError("size belongs to clean pictures; a source of corrupted ones was made with its own")
    return images


def _pairs(source: Corrupted, corruptions: Sequence[str], severities: Sequence[int]) -> list[tuple[str, int]]:
    check_names(corruptions, severities)
    if not corruptions or not severities or len({*corruptions}) != len(corruptions) or len({*severities}) != len(severities):
        raise ConfigError("give at least one corruption and one severity, each once")
    missing = [name for name in corruptions if name not in source.corruptions]
    missing += [f"severity {severity}" for severity in severities if severity not in source.severities]
    if missing:
        raise ConfigError(f"{source.name} lacks {', '.join(missing)}; it has {', '.join(source.corruptions)} at {source.severities}")
    return [(name, severity) for name in corruptions for severity in severities]


def _counted(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    return (lambda done: None) if progress is None else (lambda done: progress(before + done, total))


def _block(
    kept: Kept | None,
    name: str,
    models: Sequence[Judged],
    truths: Sequence[Tensor],
    batches: Callable[[], Iterable[Tensor] | None],
    count: Callable[[int], None],
) -> Tensor | None:
    """(M, N) uint8, whether each model names each picture rightly; from what is kept where it is done. None where a source has none."""
    found = None if kept is None else kept.read(name)
    if found is not None:
        right = torch.stack([found[0][model.name] for model in models])
        if right.shape != (len(models), len(truths[0])):
            raise DataError(f"what is kept of {name} is of {tuple(right.shape)} outcomes; remove it, and its images are asked again")
        count(right.shape[1])
        return right
    parts, done = [], 0
    given = batches()
    if given is None:
        count(len(truths[0]))
        return None
    for pictures in given:
        rows = slice(done, done + len(pictures))
        parts.append(torch.stack([_right(model, pictures, truth[rows]) for model, truth in zip(models, truths, strict=True)]))
        done = rows.stop
        count(done)
    right = torch.cat(parts, dim=1)
    if kept is not None:
        kept.write(name, {model.name: own for model, own in zip(models, right, strict=True)})
    return right


def _right(model: Judged, pictures: Tensor, truth: Tensor) -> Tensor:
    """(B,) uint8. pictures: uint8 or float in [0, 1]."""
    given: Any = pictures if pictures.is_floating_point() else pictures.float().div_(255)
    return (model.logits(given).argmax(dim=1) == truth).to(torch.uint8)


def _there(block: Tensor | None) -> Tensor:
    if block is None:
        raise DataError("the source gave no pictures")
    return block
