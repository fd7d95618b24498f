"""Whether a classifier's confidence can be believed: calibration errors, proper scores, a temperature, the reliability diagram.

References: Guo et al., ICML 2017, arXiv 1706.04599 (ECE, temperature); Nguyen & O'Connor, EMNLP 2015 (bins of equal mass); Brier 1950.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.errors import ConfigError, DataError

BINS = 15
"""As published."""
HOTTEST = 100.0
"""A temperature is looked for between the inverse of this and this."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A reliability diagram: what is said in each bin of confidence, and what is true there.

    Attributes:
        edges: bins + 1 ends, from 0 to 1.
        counts: images of each bin.
        confidence, accuracy: their means; None in an empty bin.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over images of |accuracy - confidence| of their bins (arXiv 1706.04599, Eq. 3)."""
        gaps = zip(self.counts, self.confidence, self.accuracy, strict=True)
        return sum(n * abs(a - c) for n, c, a in gaps if c is not None and a is not None) / sum(self.counts)


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = BINS, equal_mass: bool = False) -> Reliability:
    """The diagram of predictions.

    Args:
        confidence: (N,) probability of the predicted class.
        right: (N,) whether it is the true one.
        bins: of one width each, (low, high], or of equal mass.
        equal_mass: as many images in each bin, give or take one; equal confidences may lie in two.
    """
    _check_predictions(confidence, right, bins)
    place, edges = places_of(confidence, bins, equal_mass)
    counts = np.bincount(place, minlength=bins)
    means = [
        np.bincount(place, weights=values, minlength=bins) / np.maximum(counts, 1) for values in (confidence, right.astype(np.float64))
    ]
    said, true = ([float(value) if count else None for value, count in zip(mean, counts, strict=True)] for mean in means)
    return Reliability(edges=edges, counts=tuple(int(count) for count in counts), confidence=tuple(said), accuracy=tuple(true))


def places_of(confidence: NDArray[np.float64], bins: int, equal_mass: bool) -> tuple[NDArray[np.int64], tuple[float, ...]]:
    """The bin of each confidence (N,), and the bins + 1 ends; see `reliability`."""
    if not equal_mass:
        edges = tuple(float(edge) for edge in np.linspace(0, 1, bins + 1))
        return np.clip(np.searchsorted(np.asarray(edges), confidence, side="left") - 1, 0, bins - 1), edges
    order = np.argsort(confidence, kind="stable")
    ends = np.arange(bins + 1) * len(order) // bins
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.repeat(np.arange(bins), np.diff(ends))
    ranked = confidence[order]
    inner = [float(ranked[end] if end < len(ranked) else 1.0) for end in ends[1:-1]]
    return place, (0.0, *inner, 1.0)


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = BINS, equal_mass: bool = False) -> float:
    """ECE (bins of equal width) or, with `equal_mass`, adaptive ECE. Args as in `reliability`."""
    return reliability(confidence, right, bins=bins, equal_mass=equal_mass).error


def chance_error(
    confidence: NDArray[np.float64], *, bins: int = BINS, equal_mass: bool = False, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """(mean, 95th percentile) of the error that a perfectly calibrated classifier of these confidences would show on as many images.

    An error of bins is never 0 on few images, however true the confidence is: only what lies above the second figure speaks against the
    classifier.

    Args:
        confidence, bins, equal_mass: as in `reliability`.
        draws: of sets of right and wrong answers, each right with its own confidence. seed: of them.
    Reference: consistency resampling, Broecker & Smith, Weather and Forecasting 2007; Vaicenavicius et al., AISTATS 2019, arXiv 1902.06977.
    """
    generator = np.random.default_rng(seed)
    found = [
        calibration_error(confidence, generator.random(len(confidence)) < confidence, bins=bins, equal_mass=equal_mass)
        for _ in range(draws)
    ]
    return float(np.mean(found)), float(np.quantile(found, 0.95))


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgements:
    """What each image adds to the figures; everything else follows, also paired differences.

    confidence (N,) of the predicted class; right (N,) bool; brier (N,): sum_k (p_k - y_k)², 0 to 2; surprise (N,): -log p_y in nats.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    brier: NDArray[np.float64]
    surprise: NDArray[np.float64]

    @classmethod
    def room(cls, images: int) -> Judgements:
        """For so many images, which `put` fills."""
        confidence, brier, surprise = (np.full(images, np.nan) for _ in range(3))
        return cls(confidence=confidence, right=np.zeros(images, dtype=np.bool_), brier=brier, surprise=surprise)

    def put(self, rows: slice, found: Judgements) -> None:
        """What was found of some images in their places."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[rows] = getattr(found, name)

    def index(self, rows: NDArray[np.int64]) -> Judgements:
        return Judgements(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def __len__(self) -> int:
        return len(self.right)

    def scores(self, bins: int = BINS) -> dict[str, float]:
        """accuracy, ece, adaptive_ece, brier and nll (nats)."""
        return {
            "accuracy": float(self.right.mean()),
            "ece": calibration_error(self.confidence, self.right, bins=bins),
            "adaptive_ece": calibration_error(self.confidence, self.right, bins=bins, equal_mass=True),
            "brier": float(self.brier.mean()),
            "nll": float(self.surprise.mean()),
        }


def judge(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Judgements:
    """Of logits (N, K) and labels (N,) int64, at a temperature: softmax(logits / T)."""
    _check_logits(logits, labels)
    log = (logits.double() / temperature).log_softmax(1)
    probabilities = log.exp()
    own = log.gather(1, labels[:, None])[:, 0]
    brier = probabilities.square().sum(1) - 2 * own.exp() + 1
    best = probabilities.max(1)
    return Judgements(
        confidence=best.values.numpy(),
        right=(best.indices == labels).numpy(),
        brier=brier.clamp(min=0).numpy(),
        surprise=(-own).numpy(),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """T that minimises the negative log likelihood of softmax(logits / T); decisions stay as they are.

    Fit it on other images than those that are judged. In b = 1 / T the likelihood is convex, so the bounded search finds the least; where
    every image is named rightly with any margin there is none, and the coldest temperature is given.

    Args:
        logits: (N, K); labels: (N,) int64.
    Returns:
        T, 1 / HOTTEST to HOTTEST.
    Reference: arXiv 1706.04599, section 4.2.
    """
    from scipy import optimize

    _check_logits(logits, labels)
    scores = logits.double()
    rivals = scores.scatter(1, labels[:, None], -math.inf).amax(1)
    if bool((scores.gather(1, labels[:, None])[:, 0] > rivals).all()):
        return 1 / HOTTEST  # the likelihood only rises with the cold, and becomes flat where it rounds to 1

    def loss(log_inverse: float) -> float:
        log = (scores * math.exp(log_inverse)).log_softmax(1)
        return float(-log.gather(1, labels[:, None]).mean())

    reach = math.log(HOTTEST)
    found = optimize.minimize_scalar(loss, bounds=(-reach, reach), method="bounded", options={"xatol": 1e-6})
    return math.exp(-float(found.x))


def _check_logits(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(
            f"calibration needs logits (N, K) and labels (N,), at least one, got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if not bool(logits.isfinite().all()):
        raise DataError("logits hold NaN or infinite values; nothing can be said of their calibration")
    if not bool(((labels >= 0) & (labels < logits.shape[1])).all()):
        raise DataError(f"labels must lie in 0 to {logits.shape[1] - 1}, got {int(labels.min())} to {int(labels.max())}")


def _check_predictions(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int) -> None:
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, got {bins}; {BINS} is published")
    if confidence.ndim != 1 or confidence.shape != right.shape or not len(confidence):
        raise DataError(f"confidence and right must be (N,), at least one, got {confidence.shape} and {right.shape}")
    if not bool(((confidence >= 0) & (confidence <= 1 + 1e-6)).all()):  # also when NaN
        raise DataError(f"confidence must lie in [0, 1], got {confidence.min():g} to {confidence.max():g}; give probabilities, not logits")
