"""What a training step looks at and what it adds up: cross-entropy on every view, and AugMix's consistency.

Terms are means over their pictures and are summed, not averaged, each cross-entropy with weight 1, as in the authors' program.

Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192 (denoised views); Hendrycks et al., ICLR 2020, arXiv 1912.02781, section 3
(consistency); Hendrycks et al., ICCV 2021, arXiv 2006.16241 (DeepAugment).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.errors import ConfigError
from rediffuse.methods.bank import Bank
from rediffuse.methods.base import Method
from rediffuse.methods.diffaug import DiffAug
from rediffuse.training.soft_labels import SoftLabels

Source = Literal["centre", "aligned", "independent"]
"""What a view starts from. centre: the picture as it is judged, without random crop or flip (the DiffAug paper, which at 224 pixels takes
the middle of 256: fit crop:0.875); aligned: the crop of the clean view; independent: a crop of its own."""
BatchNorm = Literal["joint", "split"]
"""joint: all views in one batch share their statistics (the paper). split: each kind of view is normalised by its own, and the running
statistics, used after training, are those of the clean views."""
SMALLEST_SHARE = 1e-7
JSD_WEIGHT = 12.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Extra:
    """One more view of each picture, under cross-entropy.

    Args:
        method: what is done to it; a Bank gives views with labels of their own; None does nothing (one more clean view).
        source: what it starts from.
        share: part of a batch that gets the view, in (0, 1], a picture at least; the term is the mean over that part: its weight stays 1.
        pictures: (N, 3, H, W) uint8 in the order of the training set: copies that were made before, such as DeepAugment's, in the
            place of the pictures (`pool.aligned_copies`).
        draws: of a Bank that `views.fill_bank` filled: each picture gets one of so many of its own views; None: any picture's.
    """

    method: Method[Any] | Bank | None = None
    source: Source = "centre"
    share: float = 1.0
    pictures: Tensor | None = None
    draws: int | None = None

    def __post_init__(self) -> None:
        _check_method(self.method)
        if self.source not in get_args(Source):
            raise ConfigError(f"source must be one of {', '.join(get_args(Source))}, got {self.source!r}")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is a part of the batch and must be in (0, 1], got {self.share}; leave the view out for 0")
        if self.pictures is not None and self.source == "aligned":
            raise ConfigError("pictures of their own are no crop of the clean view; choose source centre or independent")
        if self.draws is not None and (not isinstance(self.method, Bank) or self.draws < 1):
            raise ConfigError(f"draws says how many views of each picture a Bank holds, got {self.draws} for {type(self.method).__name__}")

    def describe(self) -> dict[str, Any]:
        """All that decides the views, as JSON, so that a checkpoint can tell whether it is this training's."""
        own = None if self.pictures is None else hashlib.sha256(self.pictures.contiguous().numpy().data).hexdigest()
        made = {"method": describe(self.method), "source": self.source, "share": self.share}
        return made | ({} if own is None else {"pictures": own}) | ({} if self.draws is None else {"draws": self.draws})


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """What a step does with a batch: its clean view under cross-entropy, and whatever is added to that.

    Choose one of the functions below, which are the published recipes, or put one together.

    Args:
        extras: more views, each with a term of its own.
        augmix: makes two views of the clean one, which enter the consistency and no cross-entropy; None leaves it out.
        consistency: weight of the Jensen-Shannon divergence of the three.
        stand_ins: what may stand in for a picture as the clean view; each of them and the picture itself alike often.
        soft: mixes the clean view and its labels; the other terms keep the hard labels.
        batchnorm: joint or split.
    """

    extras: tuple[Extra, ...] = ()
    augmix: Method[Any] | None = None
    consistency: float = JSD_WEIGHT
    stand_ins: tuple[Extra, ...] = ()
    soft: SoftLabels | None = None
    batchnorm: BatchNorm = "joint"

    def __post_init__(self) -> None:
        _check_method(self.augmix)
        if self.batchnorm not in get_args(BatchNorm):
            raise ConfigError(f"batchnorm must be one of {', '.join(get_args(BatchNorm))}, got {self.batchnorm!r}")
        if not 0 <= self.consistency < math.inf:
            raise ConfigError(f"consistency is a weight and must be at least 0 and finite, got {self.consistency}")
        if self.augmix is not None and self.soft is not None:
            raise ConfigError("consistency is between views of one picture; it does not go with mixed pictures: leave out augmix or soft")
        if any(isinstance(stand_in.method, Bank) for stand_in in self.stand_ins):
            raise ConfigError("a Bank's views have labels of their own and cannot stand in for a picture; make it one of the extras")

    @property
    def samples(self) -> float:
        """Pictures that the classifier sees for one of the batch."""
        return 1 + (2 if self.augmix is not None else 0) + sum(extra.share for extra in self.extras)

    def describe(self) -> dict[str, Any]:
        """All that decides the step, as JSON."""
        return {
            "extras": {str(place): extra.describe() for place, extra in enumerate(self.extras)},  # by name, so that one can be told
            "augmix": describe(self.augmix),
            "consistency": self.consistency,
            "stand_ins": {str(place): stand_in.describe() for place, stand_in in enumerate(self.stand_ins)},
            "soft": None if self.soft is None else vars(self.soft),
            "batchnorm": self.batchnorm,
        }


def plain(views: int = 1) -> Objective:
    """Cross-entropy on so many clean crops of each picture: the control with as many views as another arm has."""
    if views < 1:
        raise ConfigError(f"views must be at least 1, got {views}")
    return Objective(extras=(Extra(source="independent"),) * (views - 1))


def base(*methods: Method[Any] | Bank, source: Source = "centre", share: float = 1.0) -> Objective:
    """CE(x) + CE(view) for each method: with `DiffAug`, the paper's training from scratch."""
    return Objective(extras=tuple(Extra(method=method, source=source, share=share) for method in methods))


def augmix(augment: Method[Any], *extras: Extra) -> Objective:
    """CE(x) + 12 JS(x, AugMix(x), AugMix(x)) and the extras' terms: a DiffAug view stays outside the consistency."""
    return Objective(augmix=augment, extras=extras)


def deepaugment(views: Sequence[Extra], *extras: Extra) -> Objective:
    """CE(x) + CE of each DeepAugment view (copies made before, or `DeepAugment()` on an independent crop), and the extras' terms."""
    return Objective(extras=(*views, *extras))


def deepaugment_augmix(views: Sequence[Extra], augment: Method[Any], *extras: Extra) -> Objective:
    """AugMix where a DeepAugment view may stand in for the picture: CE(x') + 12 JS(x', AugMix(x'), AugMix(x')) and the extras' terms.

    A DiffAug view among the extras comes from the picture itself.
    """
    return Objective(augmix=augment, stand_ins=tuple(views), extras=extras)


def soft_stage(*extras: Extra, soft: SoftLabels | None = None) -> Objective:
    """What the second stage of DeiT-III adds up, with denoised views: soft labels on the clean term, hard labels on the extras'.

    Its RandAugment belongs to the pictures and its stochastic depth to the network; neither is here.
    """
    return Objective(extras=extras, soft=SoftLabels() if soft is None else soft)


def jensen_shannon(logits: Sequence[Tensor]) -> Tensor:
    """Divergence of predictions from their mean, mean over the batch: (1 / K) sum_k KL(p_k || M), M = mean_k p_k kept above 1e-7.

    logits: K tensors (B, classes). Reference: arXiv 1912.02781, section 3.
    """
    logs = [values.float().log_softmax(1) for values in logits]
    middle = torch.stack([log.exp() for log in logs]).mean(0).clamp(SMALLEST_SHARE, 1).log()
    parts = [(log.exp() * (log - middle)).sum(1).mean() for log in logs]
    return torch.stack(parts).mean()


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """The pictures of one step, all float in [0, 1].

    clean: (B, 3, H, W); labels: (B,) int64; mixes: AugMix's, of the clean ones; extras: (pictures (M, 3, H, W), labels (M,)) each, M may be
    0; target: (B, classes), what soft labels say of the clean ones.
    """

    clean: Tensor
    labels: Tensor
    mixes: tuple[Tensor, ...] = ()
    extras: tuple[tuple[Tensor, Tensor], ...] = ()
    target: Tensor | None = None


def terms_of(objective: Objective, views: Views, logits: Sequence[Tensor], smoothing: float = 0.0) -> dict[str, Tensor]:
    """The terms of the loss, weighted, by name. logits: of the clean view, the mixes and the extras, in this order, float32.

    smoothing: of hard labels; where labels are soft, the extras' stay hard.
    """
    clean, mixes, extras = logits[0], logits[1 : 1 + len(views.mixes)], logits[1 + len(views.mixes) :]
    if views.target is None:
        terms = {"clean": F.cross_entropy(clean, views.labels, label_smoothing=smoothing)}
    else:
        terms = {"clean": F.cross_entropy(clean, views.target)}
    if mixes:
        terms["consistency"] = objective.consistency * jensen_shannon([clean, *mixes])
    for place, (found, (_, labels)) in enumerate(zip(extras, views.extras, strict=True)):
        if len(labels):
            hard = 0.0 if views.target is not None else smoothing
            terms[f"extra_{place}"] = F.cross_entropy(found, labels, label_smoothing=hard)
    return terms


def _check_method(method: Any) -> None:
    """Raise ConfigError for what makes no views, such as a bare denoiser."""
    if method is not None and not hasattr(method, "manual_seed"):
        raise ConfigError(f"method must make views of pictures, got {method!r:.60}; a denoiser goes into one: DiffAug(denoiser)")


def describe(method: Method[Any] | Bank | nn.Module | None) -> Any:
    """What a method is, denoiser and its numbers included, as JSON."""
    if method is None:
        return None
    if isinstance(method, Bank):
        own = {name: getattr(method, name) for name in ("rate", "capacity", "warmup", "padding", "flips")}
        return {"bank": json.loads(method.made_by or "null"), **own}
    told: Any = getattr(method, "settings", None)
    settings = told() if callable(told) else f"{type(method).__qualname__}({method.extra_repr()})"
    if isinstance(method, DiffAug):
        numbers = str(getattr(method.denoiser, "dtype", torch.float32)).removeprefix("torch.")  # of which its fingerprint says nothing
        return {"settings": settings, "denoiser": method.denoiser.fingerprint(), "numbers": numbers}
    return settings
