"""One door to every training: a labelled set in, a classifier out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.checking import check_bytes, check_labels, check_tensor
from rediffuse.data.geometry import Fit
from rediffuse.data.mixing import Mixed
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.precision import resolve_device
from rediffuse.errors import ConfigError, DataError
from rediffuse.training.augment import StandardViews
from rediffuse.training.backbones import FROM_RANDOM, SCRATCH, Classifier, Progress, open_backbone
from rediffuse.training.linear import features, fit_head
from rediffuse.training.loop import fit_network
from rediffuse.training.objectives import Objective
from rediffuse.training.pool import PixelBank, Pool, pool_of
from rediffuse.training.settings import DEFAULTS, MODES, Mode, TrainSettings

TrainSet = Pool | Mixed | ImageSet | Any
"""Or any map-style data set of (float (3, H, W) in [0, 1], label)."""


def fit_classifier(
    train_set: TrainSet,
    classes: Sequence[str],
    *,
    level: str = SCRATCH,
    mode: Mode | None = None,
    steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    size: int = 64,
    fit: str = "pad",
    flips: bool | None = None,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Classifier:
    """Train an image classifier.

    Choose mode "linear" for a handful of images and features that know something, "whole" for random weights or when images are many.
    Views for robustness: an objective; `loop.fit_network` takes law, means and size of the views as well.

    Args:
        train_set: an ImageSet, a Mixed (its alpha counts), a Pool, or any data set of (float (3, H, W) in [0, 1], label)
            that fits into memory.
        classes: names, in label order.
        level: what the network knows at the start: "scratch", "resnet-64", ...; see `backbones.open_backbone`.
        mode: "linear" (a head on frozen features) or "whole"; None takes linear where the network knows something.
        steps, batch, learning_rate, weight_decay: None takes the mode's own (`settings.DEFAULTS`).
        objective: of mode "whole": which views a step looks at, `objectives.base(DiffAug(...))` for one; default: the clean one.
        seed: of the start, the draws and the augmentation.
        size: side in pixels at which pictures are held.
        fit: how other shapes become that square: pad, crop or squash.
        flips: whether a mirrored picture keeps its label; None asks the set.
        device: where the network is: auto, cpu, cuda, ...
        checkpoint: file from which a killed training of the whole network continues.
        progress: called with (steps done, in all), in mode linear with (pictures seen, in all): its head takes seconds then.
    Returns:
        The classifier, in evaluation mode.
    Raises:
        ConfigError: linear from random weights or with an objective, or a setting outside its range.
        DataError: no labels, fewer than two classes, or an item of another type or range.
    """
    chosen = mode_of(level, mode if objective is None else mode or "whole")
    if chosen == "linear" and objective is not None:
        raise ConfigError("mode linear learns a head on frozen features, which sees no views; choose mode whole, or no objective")
    given: dict[str, Any] = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "weight_decay": weight_decay}
    settings = replace(DEFAULTS[chosen], **{name: value for name, value in given.items() if value is not None})
    pool, own_flips = as_pool(train_set, classes, size, fit)
    mirrored = own_flips if flips is None else flips
    start = open_backbone(level, classes, seed=seed, size=size).to(resolve_device(device))
    if chosen == "linear":
        start.remember(max(pool.items.shape[-2:]), pool.fit)
        return with_head(start, replace(pool, items=features(start, pool.items, mirrored, progress)), settings, seed)
    views = StandardViews(flips=mirrored)
    return fit_network(
        start, pool, settings=settings, views=views, objective=objective, seed=seed, checkpoint=checkpoint, progress=progress
    )


def mode_of(level: str, mode: Mode | None = None) -> Mode:
    """The mode that is asked for, or the usual one of a level: whole from random weights, else linear. Raises ConfigError."""
    chosen: Mode = ("whole" if level in FROM_RANDOM else "linear") if mode is None else mode
    if chosen not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if chosen == "linear" and level in FROM_RANDOM:
        raise ConfigError("mode linear needs features that know something; choose level resnet-64, a folder or a hub name, or mode whole")
    return chosen


def with_head(classifier: Classifier, pool: Pool, settings: TrainSettings, seed: int) -> Classifier:
    """Put a head learned on features into a classifier, in place."""
    learned = fit_head(pool, len(classifier.classes), settings=settings, seed=seed)
    with torch.no_grad():
        classifier.head.weight.copy_(learned.weight)
        classifier.head.bias.copy_(learned.bias)
    return classifier.eval()


def as_pool(train_set: TrainSet, classes: Sequence[str], size: int, fit: str) -> tuple[Pool, bool]:
    """A training set in memory, and whether flips keep its labels."""
    if isinstance(train_set, Pool):
        pool, flips = train_set, True
    elif isinstance(train_set, ImageSet):
        pool, flips = pool_of(train_set, None, _bank(size, fit)), train_set.flips
    elif isinstance(train_set, Mixed):
        pool, flips = pool_of(train_set.real, train_set.synthetic, _bank(size, fit), train_set.alpha), train_set.real.flips
    else:
        pool, flips = _from_items(train_set), True
    check_bytes(pool.items)
    check_labels(pool.labels, len(classes))
    return pool, flips


def _bank(size: int, fit: str) -> PixelBank:
    Fit(mode=fit, size=size)  # type: ignore[arg-type]  # checks the word
    return PixelBank(size, fit)  # type: ignore[arg-type]


def _from_items(items: Any) -> Pool:
    images: list[Tensor] = []
    labels: list[int] = []
    for place in range(len(items)):
        image, label = items[place]
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
            raise DataError(f"item {place} must be (float tensor (3, H, W) in [0, 1], label), got {type(image).__name__}")
        images.append(image if image.dtype == torch.uint8 else _bytes(image, place))
        labels.append(int(label))
    if len({tuple(image.shape) for image in images}) > 1:
        raise DataError("items differ in size; resize them to one, or give an ImageSet")
    if not images:
        raise DataError("a training set needs at least one image, got none")
    return Pool.build(torch.stack(images), torch.tensor(labels), None, [()] * len(labels), 0.0)


def _bytes(image: Tensor, place: int) -> Tensor:
    try:
        return check_tensor(image).mul(255).round().clamp(0, 255).to(torch.uint8)
    except DataError as error:
        raise DataError(f"item {place}: {error}") from error
