"""One door to every training: a labelled set in, a classifier out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.checking import check_bytes, check_labels, check_tensor
from rediffuse.data.mixing import Mixed
from rediffuse.data.open import open_images
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.precision import resolve_device
from rediffuse.errors import ConfigError, DataError
from rediffuse.training.augment import StandardViews
from rediffuse.training.backbones import FROM_RANDOM, SCRATCH, open_backbone
from rediffuse.training.classifier import Classifier, Progress
from rediffuse.training.linear import features, fit_head
from rediffuse.training.loop import fit_network
from rediffuse.training.objectives import Objective
from rediffuse.training.pool import PixelBank, Pool, pool_of
from rediffuse.training.preprocessing import Preprocessing
from rediffuse.training.settings import DEFAULTS, MODES, Mode, TrainSettings

TrainSet = Pool | Mixed | ImageSet | Any
"""Or any map-style data set of (float (3, H, W) in [0, 1], label)."""


def fit_classifier(
    train_set: TrainSet,
    classes: Sequence[str],
    *,
    level: str | nn.Module = SCRATCH,
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
        train_set: an ImageSet or the path of one, a Mixed (its alpha counts, its seed does not), a Pool, or any data set of (float
            (3, H, W) in [0, 1], label) that fits into memory.
        classes: names, in the order of the classifier's outputs. The labels of an ImageSet or a Mixed are matched to them by name, those
            of others are taken for places among them.
        level: what the network knows at the start: "scratch", "resnet-64", ...; see `backbones.open_backbone`. Or a network of one's
            own, (B, 3, size, size) in [-1, 1] -> logits, which is trained in place; a `Classifier` of it says another normalisation.
        mode: "linear" (a head on frozen features) or "whole"; None takes linear where level names weights, whole for random ones and for
            a network of one's own.
        steps, batch, learning_rate, weight_decay: None takes the mode's own (`settings.DEFAULTS`).
        objective: of mode "whole": which views a step looks at, `objectives.base(DiffAug(...))` for one; default: the clean one.
        seed: of the start, the draws and the augmentation.
        size: side in pixels at which pictures are held.
        fit: how other shapes become that square: pad, crop, squash, or crop:0.875; see `data.geometry.Fit`.
        flips: whether a mirrored picture keeps its label; None asks the set.
        device: where the network is: auto, cpu, cuda, ...
        checkpoint: file from which a killed training of the whole network continues; a head in mode linear takes little, and none.
        progress: called with (steps done, in all), in mode linear with (pictures seen, in all): its head takes seconds then.
    Returns:
        The classifier, in evaluation mode.
    Raises:
        ConfigError: linear from random weights or with an objective, a Mixed with a transform, or a setting outside its range.
        DataError: no labels, fewer than two classes, a class of the set that is not among them, or an item of another type or range.
    """
    if objective is not None and not isinstance(objective, Objective):
        raise ConfigError(
            f"objective must be an Objective, as the functions of rediffuse.training.objectives make them, got {objective!r:.60}; for a "
            "method's views: objectives.base(method)"
        )
    chosen = mode_of(level, mode if objective is None else mode or "whole")
    if chosen == "linear" and objective is not None:
        raise ConfigError("mode linear learns a head on frozen features, which sees no views; choose mode whole, or no objective")
    given: dict[str, Any] = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "weight_decay": weight_decay}
    settings = replace(DEFAULTS[chosen], **{name: value for name, value in given.items() if value is not None})
    train_set = open_images(train_set) if isinstance(train_set, str | Path) else train_set
    pool, own_flips = as_pool(train_set, classes, size, fit, margin=chosen == "whole")
    mirrored = own_flips if flips is None else flips
    start = _own(level, classes, size) if isinstance(level, nn.Module) else open_backbone(level, classes, seed=seed, size=size)
    start = start.to(resolve_device(device))
    if chosen == "linear" and start.knows_nothing:
        raise ConfigError("mode linear needs features that know something, and these weights are random; choose mode whole")
    taught = start.learned | digests_of(train_set)
    if chosen == "linear":
        start.remember(pool.side, pool.fit)
        trained = with_head(start, replace(pool, items=features(start, pool.items, mirrored, progress)), settings, seed)
    else:
        views = StandardViews(flips=mirrored)
        trained = fit_network(
            start, pool, settings=settings, views=views, objective=objective, seed=seed, checkpoint=checkpoint, progress=progress
        )
    trained.learned = taught
    return trained


def _own(network: nn.Module, classes: Sequence[str], size: int) -> Classifier:
    """A network of the caller's, as it is trained here. Raises ConfigError for a Classifier of other classes."""
    if len(classes) < 2:
        raise DataError(f"a classifier needs at least two classes, got {len(classes)}: {', '.join(map(repr, classes)) or 'none'}")
    if not isinstance(network, Classifier):
        return Classifier(network, Preprocessing(height=size, width=size), classes)
    if network.classes != tuple(classes):
        raise ConfigError(
            f"the classifier's classes are {', '.join(network.classes)}, not {', '.join(classes)}; name the same, in its order"
        )
    return network


def mode_of(level: str | nn.Module, mode: Mode | None = None) -> Mode:
    """The mode that is asked for, or the usual one of a level: linear where it is the name of weights, else whole. Raises ConfigError."""
    fresh = isinstance(level, nn.Module) or level in FROM_RANDOM
    chosen: Mode = ("whole" if fresh else "linear") if mode is None else mode
    if chosen not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if chosen == "linear" and not isinstance(level, nn.Module) and level in FROM_RANDOM:
        raise ConfigError("mode linear needs features that know something; choose level resnet-64, a folder or a hub name, or mode whole")
    return chosen


def with_head(classifier: Classifier, pool: Pool, settings: TrainSettings, seed: int) -> Classifier:
    """Put a head learned on features into a classifier, in place."""
    if classifier.head.bias is None:
        raise ConfigError("mode linear learns a head with a bias, and the last linear layer of this network has none; choose mode whole")
    learned = fit_head(pool, len(classifier.classes), settings=settings, seed=seed)
    with torch.no_grad():
        classifier.head.weight.copy_(learned.weight)
        classifier.head.bias.copy_(learned.bias)
    return classifier.eval()


def as_pool(train_set: TrainSet, classes: Sequence[str], size: int, fit: str, *, margin: bool = False) -> tuple[Pool, bool]:
    """A training set in memory, its labels counted in these classes, and whether flips keep them. margin: of `PixelBank`."""
    bank = PixelBank(size, fit, margin=margin)
    if isinstance(train_set, Pool):
        pool, flips = train_set, True
    elif isinstance(train_set, ImageSet):
        pool, flips = pool_of(_counted_in(train_set, classes), None, bank), train_set.flips
    elif isinstance(train_set, Mixed):
        if train_set.transform is not None:
            raise ConfigError(
                "a training makes its own views, so the transform of this Mixed would not be seen; leave it out, or give an objective"
            )
        real = _counted_in(train_set.real, classes)
        pool, flips = pool_of(real, train_set.synthetic, bank, train_set.alpha), real.flips
    else:
        pool, flips = _from_items(train_set), True
    check_bytes(pool.items)
    check_labels(pool.labels, len(classes))
    return pool, flips


def digests_of(train_set: TrainSet) -> frozenset[str]:
    """Of all pictures that a training sees, generated ones too, where the set knows them."""
    if isinstance(train_set, ImageSet):
        return frozenset(train_set.digests)
    if not isinstance(train_set, Mixed):
        return frozenset()
    made = () if train_set.synthetic is None else train_set.synthetic.digests
    return frozenset([*train_set.real.digests, *(made[row] for own in train_set.copies for row in own)])


def _counted_in(images: ImageSet, classes: Sequence[str]) -> ImageSet:
    """The set with labels that count in these classes, matched by name. Raises DataError for classes that are not among them."""
    return images if images.classes == tuple(classes) else images.with_classes(classes)


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
