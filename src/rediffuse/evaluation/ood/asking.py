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
    """

    size: int
    fit: Literal["pad", "crop", "squash"] = "pad"
    scores: tuple[str, ...] = rules.SCORES
    bank: int = BANK
    neighbours: int = NEIGHBOURS
    seed: int = 0
    batch: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", rules.check_names(self.scores))
        for name in ("size", "bank", "neighbours", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def fitted(self) -> bool:
        """Whether a score asks for training images."""
        return any(name in rules.FITTED_SCORES for name in self.scores)


def askable(model: Judged, images: ImageSet, *, size: int, fit: Literal["pad", "crop", "squash"] = "pad") -> tuple[str, ...]:
    """The scores that make sense for a network: without ReAct, ASH and SCALE where its first images have negative features."""
    _, pictures = next(batches(images[:64], size=size, fit=fit))
    features, _ = model.features(pictures)
    try:
        rules.check_rectified(features, model.name)
        rules.linear(model.head, model.name)
    except ModelError:
        return (*rules.LOGIT_SCORES, *rules.DISTANCE_SCORES)
    return rules.SCORES


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
        raise ModelError(f"{model.name} gives features that are NaN or infinite; its weights or its numbers (--dtype float32) are broken")
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
    bias = None if head.bias is None else head.bias.detach().double().cpu()
    again = F.linear(features, head.weight.detach().double().cpu(), bias)
    if again.shape != logits.shape or float((again - logits).abs().max()) > 0.02 * (1 + float(logits.abs().max())):
        asked = ", ".join(rules.RECTIFIED_SCORES)
        raise ModelError(f"the head of {model.name} is not what makes its logits; say which layer is, or leave out the scores {asked}")
