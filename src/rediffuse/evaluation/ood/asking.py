"""How images are asked about, and every score of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, ModelError
from rediffuse.evaluation.judged import Judged, batches
from rediffuse.evaluation.ood import scores as rules
from rediffuse.evaluation.ood.reference import BANK, NEIGHBOURS, Reference

_OF_LOGITS: Mapping[str, Callable[[Tensor], Tensor]] = {"msp": rules.msp, "max_logit": rules.max_logit, "energy": rules.energy}
_OF_FEATURES = (*rules.RECTIFIED_SCORES, *rules.DISTANCE_SCORES)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How images are asked about.

    Args:
        size: side in pixels of the square that every image of every set becomes, with antialiasing; the known set's own.
        fit: how other shapes become that square; see `data.geometry.Fit`.
        scores: of `scores.SCORES`; ReAct, ASH and SCALE want features behind a ReLU.
        bank: training images that ReAct, KNN and Mahalanobis are fitted to, at most; a seeded choice by pixels, whatever their order.
        neighbours: k of KNN.
        seed: of the choice.
        batch: images a call.
        leave_out: a score that training images or features cannot give is left out and noted; else it is an error.
    """

    size: int
    fit: str = "pad"
    scores: tuple[str, ...] = rules.SCORES
    bank: int = BANK
    neighbours: int = NEIGHBOURS
    seed: int = 0
    batch: int = 256
    leave_out: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", rules.check_names(self.scores))
        for name in ("size", "bank", "neighbours", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def fitted(self) -> bool:
        """Whether a score asks for training images."""
        return any(name in rules.FITTED_SCORES for name in self.scores)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a network's first images tell. lacking: score -> why it cannot be had; width: of its features, 0 where it has none."""

    lacking: Mapping[str, str]
    width: int


def look(model: Judged, images: ImageSet, *, size: int, fit: str = "pad") -> Look:
    """Ask a network about the first images of a set.

    Without features, or where the layer that was found to be its head does not make its logits of them, it has scores of logits alone;
    where some features are negative, none of many is 0, or no linear layer makes its logits, no ReAct, ASH and SCALE.
    """
    _, pictures = next(batches(images[:64], size=size, fit=fit))
    try:
        features, logits = model.features(pictures)
    except ModelError as error:
        return Look(lacking=dict.fromkeys(_OF_FEATURES, str(error)), width=0)
    found = lacking(model, pictures, features, logits)
    try:
        rules.check_zeros(features, model.name)
    except ModelError as error:
        found = {**dict.fromkeys(rules.RECTIFIED_SCORES, error), **found}
    return Look(lacking={name: str(error) for name, error in found.items()}, width=features.shape[1])


def askable(model: Judged, images: ImageSet, *, size: int, fit: str = "pad") -> tuple[str, ...]:
    """The scores that can be had of a network, see `look`."""
    lacking = look(model, images, size=size, fit=fit).lacking
    return tuple(name for name in rules.SCORES if name not in lacking)


def lacking(model: Judged, pictures: Tensor, features: Tensor, logits: Tensor) -> dict[str, ModelError | ConfigError]:
    """Scores that cannot be had of what a network says of a batch, and why. pictures: (B, 3, H, W); features: (B, D); logits: (B, K)."""
    try:
        if not bool(features.isfinite().all()):
            raise model.not_finite("features", pictures)
        if not model.head_given:
            _check_head(model, features, logits, _OF_FEATURES)
    except ModelError as error:
        return dict.fromkeys(_OF_FEATURES, error)
    try:
        rules.check_rectified(features, model.name)
        if model.head_given:  # altered features are given to the head alone
            _check_head(model, features, logits, rules.RECTIFIED_SCORES)
        for alter in (rules.ash_b, rules.ash_s, rules.scale):
            alter(features[:1])
    except (ModelError, ConfigError) as error:
        return dict.fromkeys(rules.RECTIFIED_SCORES, error)
    return {}


def score_batch(model: Judged, pictures: Tensor, asked: Sequence[str], reference: Reference, lost: dict[str, str] | None = None) -> Tensor:
    """(B, S) float64: the scores of a batch, in the order asked.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        lost: takes up why a score cannot be had, which is NaN then; None raises ModelError or ConfigError.
    """
    if all(name in _OF_LOGITS for name in asked):
        logits = model.logits(pictures)
        return torch.stack([_OF_LOGITS[name](logits) for name in asked], dim=1)
    features, logits = features_of(model, pictures, asked, lost)
    found = []
    for name in asked:
        if name in _OF_LOGITS:
            found.append(_OF_LOGITS[name](logits))
        elif lost is not None and name in lost:
            found.append(torch.full((len(pictures),), math.nan, dtype=torch.float64))
        elif name in rules.RECTIFIED_SCORES:
            found.append(rules.of_altered(_altered(name, features.double(), reference), rules.linear(model.head, model.name)))
        else:
            distance = reference.neighbours if name == "knn" else reference.mahalanobis
            if distance is None:
                raise ConfigError(f"the score {name} asks for training images; give train, or leave that score out")
            found.append(distance.score(features))
    return torch.stack(found, dim=1)


def features_of(model: Judged, pictures: Tensor, asked: Sequence[str], lost: dict[str, str] | None = None) -> tuple[Tensor, Tensor]:
    """(features (B, D), logits (B, K)); lost: as in `score_batch`."""
    features, logits = model.features(pictures)
    for name, error in lacking(model, pictures, features, logits).items():
        if name in asked:
            if lost is None:
                raise error
            lost.setdefault(name, str(error))
    return features, logits


def _altered(name: str, features: Tensor, reference: Reference) -> Tensor:
    """(B, D): the features as one of `scores.RECTIFIED_SCORES` changes them."""
    if name == "react":
        return rules.react(features, math.inf if reference.threshold is None else reference.threshold)
    return {"ash_b": rules.ash_b, "ash_s": rules.ash_s, "scale": rules.scale}[name](features)


def _check_head(model: Judged, features: Tensor, logits: Tensor, scores: Sequence[str]) -> None:
    """Raise ModelError unless the head makes the logits of the features, which are its own only then."""
    head = rules.linear(model.head, model.name)
    bias = None if head.bias is None else head.bias.detach().cpu().double()
    fits = features.shape[1] == head.in_features and logits.shape[1] == head.out_features
    again = F.linear(features.double(), head.weight.detach().cpu().double(), bias) if fits else logits
    if not fits or float((again - logits).abs().max()) > 0.02 * (1 + float(logits.abs().max())):
        which = f"the head of {model.name}" + ("" if model.head_given else ", its last linear layer with an output a class,")
        raise ModelError(
            f"{which} is not what makes its logits; say which layer is: Judged(..., head=), or leave out the scores {', '.join(scores)}"
        )
