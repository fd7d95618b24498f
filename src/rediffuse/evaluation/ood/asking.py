"""How images are asked about, and every score of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, ModelError
from rediffuse.evaluation.judged import Judged, batches
from rediffuse.evaluation.ood import scores as rules
from rediffuse.evaluation.ood.reference import BANK, NEIGHBOURS, Reference

_OF_LOGITS: Mapping[str, Callable[[Tensor], Tensor]] = {"msp": rules.msp, "max_logit": rules.max_logit, "energy": rules.energy}


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
        leave_out: a score that the training images cannot give is left out and noted; else it is an error.
    """

    size: int
    fit: Literal["pad", "crop", "squash"] = "pad"
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


def look(model: Judged, images: ImageSet, *, size: int, fit: Literal["pad", "crop", "squash"] = "pad") -> Look:
    """Ask a network about the first images of a set: without features it has scores of logits alone, and where some of those are negative,
    or no linear layer makes its logits of them, no ReAct, ASH and SCALE."""
    _, pictures = next(batches(images[:64], size=size, fit=fit))
    try:
        features, logits = features_of(model, pictures)
    except ModelError as error:
        return Look(lacking=dict.fromkeys((*rules.RECTIFIED_SCORES, *rules.DISTANCE_SCORES), str(error)), width=0)
    try:
        for alter in _altered(model, features, logits, Reference()).values():
            alter(features)
    except (ModelError, ConfigError) as error:
        return Look(lacking=dict.fromkeys(rules.RECTIFIED_SCORES, str(error)), width=features.shape[1])
    return Look(lacking={}, width=features.shape[1])


def askable(model: Judged, images: ImageSet, *, size: int, fit: Literal["pad", "crop", "squash"] = "pad") -> tuple[str, ...]:
    """The scores that can be had of a network, see `look`."""
    lacking = look(model, images, size=size, fit=fit).lacking
    return tuple(name for name in rules.SCORES if name not in lacking)


def score_batch(model: Judged, pictures: Tensor, asked: Sequence[str], reference: Reference) -> Tensor:
    """(B, S) float64: the scores of a batch, in the order asked. pictures: (B, 3, H, W) in [0, 1]."""
    if all(name in _OF_LOGITS for name in asked):
        logits = model.logits(pictures)
        return torch.stack([_OF_LOGITS[name](logits) for name in asked], dim=1)
    features, logits = features_of(model, pictures)
    altered = _altered(model, features, logits, reference) if any(name in rules.RECTIFIED_SCORES for name in asked) else {}
    found = []
    for name in asked:
        if name in _OF_LOGITS:
            found.append(_OF_LOGITS[name](logits))
        elif name in altered:
            found.append(rules.of_altered(altered[name](features.double()), rules.linear(model.head, model.name)))
        else:
            distance = reference.neighbours if name == "knn" else reference.mahalanobis
            if distance is None:
                raise ConfigError(f"the score {name} asks for training images; give train, or leave that score out")
            found.append(distance.score(features))
    return torch.stack(found, dim=1)


def features_of(model: Judged, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(features (B, D), logits (B, K)). Raises ModelError where one of them is not finite."""
    features, logits = model.features(pictures)
    if not bool(features.isfinite().all()):
        raise model.not_finite("features", pictures)
    return features, logits


def _altered(model: Judged, features: Tensor, logits: Tensor, reference: Reference) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """What each score that alters features does to them, where that makes sense."""
    rules.check_rectified(features, model.name)
    _check_head(model, features.double(), logits)
    threshold = math.inf if reference.threshold is None else reference.threshold
    return {"react": lambda values: rules.react(values, threshold), "ash_b": rules.ash_b, "ash_s": rules.ash_s, "scale": rules.scale}


def _check_head(model: Judged, features: Tensor, logits: Tensor) -> None:
    """Altered features are given to the head alone, so it must be what makes the logits."""
    head = rules.linear(model.head, model.name)
    bias = None if head.bias is None else head.bias.detach().cpu().double()
    again = F.linear(features, head.weight.detach().cpu().double(), bias)
    if again.shape != logits.shape or float((again - logits).abs().max()) > 0.02 * (1 + float(logits.abs().max())):
        asked = ", ".join(rules.RECTIFIED_SCORES)
        raise ModelError(f"the head of {model.name} is not what makes its logits; say which layer is, or leave out the scores {asked}")
