"""Scores of logits and features that are high where a classifier knows its input, at their published settings; nothing is tuned.

All are computed in float64, because a confident softmax rounds to 1 in float32 and ties would decide the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.errors import ConfigError, ModelError

LOGIT_SCORES = ("msp", "max_logit", "energy")
RECTIFIED_SCORES = ("react", "ash_b", "ash_s", "scale")
"""Those that change the features, and make sense only of features that passed a ReLU."""
DISTANCE_SCORES = ("knn", "mahalanobis")
SCORES = (*LOGIT_SCORES, *RECTIFIED_SCORES, *DISTANCE_SCORES)
FITTED_SCORES = ("react", *DISTANCE_SCORES)
"""Those that ask for training images."""
HEADLINE = ("msp", "energy", "knn")
"""Their mean AUROC is the headline: one of probabilities, one of logits, one of features, and none with a setting that was searched."""
PAPER = ("ash_b", "msp", "react", "scale")
"""The four of the DiffAug paper, Table 3."""
REACT_PERCENTILE = 90.0
ASH_PERCENTILE = 90.0
SCALE_PERCENTILE = 85.0
ZEROS_AMONG = 1000
"""Features of which a ReLU leaves one at 0."""


def msp(logits: Tensor) -> Tensor:
    """Largest softmax probability, (N,). Reference: Hendrycks and Gimpel, ICLR 2017, arXiv 1610.02136."""
    return logits.double().softmax(1).amax(1)


def max_logit(logits: Tensor) -> Tensor:
    """Largest logit, (N,). Reference: Hendrycks et al., ICML 2022, arXiv 1911.11132."""
    return logits.double().amax(1)


def energy(logits: Tensor) -> Tensor:
    """log sum exp of the logits at temperature 1, (N,). Reference: Liu et al., NeurIPS 2020, arXiv 2010.03759, Eq. 4 (negated)."""
    return logits.double().logsumexp(1)


def react(features: Tensor, threshold: float) -> Tensor:
    """Features clipped from above at a percentile of the training features, (N, D); see `reference.react_threshold`.

    Reference: Sun, Guo, Li, NeurIPS 2021, arXiv 2111.12797, Eq. 2.
    """
    return features.clamp(max=threshold)


def ash_b(features: Tensor, percentile: float = ASH_PERCENTILE) -> Tensor:
    """The k largest of each image's features become its sum / k, the others 0; (N, D).

    Reference: Djurisic et al., ICLR 2023, arXiv 2209.09858, Algorithm 2.
    """
    top, place = _largest(features, percentile)
    share = features.sum(1, keepdim=True) / top.shape[1]
    return torch.zeros_like(features).scatter_(1, place, share.expand_as(top))


def ash_s(features: Tensor, percentile: float = ASH_PERCENTILE) -> Tensor:
    """The k largest of each image's features times exp(sum of all / sum of those), the others 0; (N, D).

    Reference: Djurisic et al., ICLR 2023, arXiv 2209.09858, Algorithm 3.
    """
    top, place = _largest(features, percentile)
    return torch.zeros_like(features).scatter_(1, place, top * _stretch(features, top))


def scale(features: Tensor, percentile: float = SCALE_PERCENTILE) -> Tensor:
    """All features times exp(sum of all / sum of the k largest), (N, D). Reference: Xu et al., ICLR 2024, arXiv 2310.00227, Eq. 5-6."""
    top, _ = _largest(features, percentile)
    return features * _stretch(features, top)


def check_rectified(features: Tensor, name: str) -> None:
    """Raise ModelError where a feature is negative: what ReAct, ASH and SCALE prune and stretch are activations of a ReLU."""
    lowest = float(features.min()) if features.numel() else 0.0
    if lowest < 0:
        asked = ", ".join(RECTIFIED_SCORES)
        raise ModelError(f"{name} has features below 0 (down to {lowest:.3g}), so no ReLU comes last; leave out the scores {asked}")


def check_zeros(features: Tensor, name: str) -> None:
    """Raise ModelError where none of many features (N, D) is exactly 0: a sigmoid or a softplus gives no negative ones either.

    Means over a map behind a ReLU hold zeros too, 7 to 42 % in trained networks here and a few in random ones at 224 pixels; of fewer than
    `ZEROS_AMONG` values nothing is said.
    """
    if features.numel() >= ZEROS_AMONG and bool((features != 0).all()):
        asked = ", ".join(RECTIFIED_SCORES)
        raise ModelError(f"none of {features.numel():,} features of {name} is 0, so no ReLU comes last; leave out the scores {asked}")


def linear(head: nn.Module, name: str) -> nn.Linear:
    """The head as the linear layer that altered features are given to. Raises ModelError where it is none."""
    if not isinstance(head, nn.Linear):
        asked = ", ".join(RECTIFIED_SCORES)
        raise ModelError(
            f"the head of {name} is a {type(head).__name__}, no linear layer; leave out the scores {asked}, or give another head"
        )
    return head


def of_altered(features: Tensor, head: nn.Linear) -> Tensor:
    """Energy of the logits that a head makes of altered features, (N,)."""
    bias = None if head.bias is None else head.bias.detach().cpu().double()
    return energy(F.linear(features.double(), head.weight.detach().cpu().double(), bias))


def check_names(scores: Sequence[str]) -> tuple[str, ...]:
    """Scores in the order asked. Raises ConfigError for an unknown one, one asked twice, or none."""
    unknown = [name for name in scores if name not in SCORES]
    if unknown or not scores or len(set(scores)) != len(scores):
        raise ConfigError(f"scores are some of {', '.join(SCORES)}, each once, got {', '.join(map(str, scores)) or 'none'}")
    return tuple(scores)


def _largest(features: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    """Values and places of the k = D - round(D percentile / 100) largest features of each image, (N, k)."""
    if not 0 <= percentile < 100:
        raise ConfigError(f"percentile must be in [0, 100), got {percentile}")
    width = features.shape[1]
    kept = width - round(width * percentile / 100)
    if kept < 1:
        raise ConfigError(f"percentile {percentile:g} keeps none of {width} features; ASH and SCALE want wider ones: leave them out")
    top = features.topk(kept, dim=1)
    return top.values, top.indices


def _stretch(features: Tensor, top: Tensor) -> Tensor:
    """exp(sum of all / sum of the largest), (N, 1); 1 for an image whose features are all 0, which no factor changes."""
    largest = top.sum(1, keepdim=True)
    return torch.where(largest > 0, features.sum(1, keepdim=True) / largest.clamp(min=torch.finfo(largest.dtype).tiny), 0.0).exp()
