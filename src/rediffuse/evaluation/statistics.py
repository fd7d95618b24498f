"""What a difference between two arms is worth: intervals over seeds, over test images where seeds are few, and a verdict in words.

A difference is always paired: both arms share shots, start and test images, so what is common to them cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import ConfigError, DataError

Verdict = Literal["helps", "no evidence", "hurts"]
VERDICTS: tuple[Verdict, ...] = ("helps", "no evidence", "hurts")
MIN_SEEDS = 4
"""Below it a t interval over seeds is too wide to say anything, and test images are resampled instead."""
MIN_IMAGES = 10
"""Below it resampled test images say nothing: of six, equal classifiers differ "significantly" in a tenth of all tests."""
FEW = "too few test images"
_WIDTH = 1e-12
"""Of an interval whose draws are all alike but for rounding."""
_NUMERALS = ("no", "one", "two", "three")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and what is known of it.

    Attributes:
        value: the mean.
        low, high: ends of the interval; None where nothing can be said (a single run, no test images to resample).
        runs: training runs behind the value.
        basis: "seeds" (t interval over seeds), "one training run", "two training runs" or "three training runs" (test images resampled:
            it does not hold what another seed would change), "too few test images", or "none".
    """

    value: float
    low: float | None = None
    high: float | None = None
    runs: int = 1
    basis: str = "none"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Interval:
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of a mean: mean ± t(level, n - 1) * s / sqrt(n).

    Choose it for independent runs (seeds), at least `MIN_SEEDS` of them; a single value has no interval.

    Args:
        values: one a seed.
        level: coverage, in (0, 1).
    Raises:
        DataError: no values, or one that is not finite.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level of an interval must be in (0, 1), got {level}")
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        raise DataError("an interval needs at least one value, got none")
    if not np.isfinite(numbers).all():
        raise DataError(f"an interval needs finite values, got {[float(v) for v in numbers]}")
    mean, count = float(numbers.mean()), int(numbers.size)
    if count == 1:
        return Interval(value=mean)
    from scipy import stats

    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * float(numbers.std(ddof=1)) / math.sqrt(count)
    return Interval(value=mean, low=mean - half, high=mean + half, runs=count, basis="seeds")


def paired_t_interval(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95) -> Interval:
    """The t interval of the mean of ours - theirs, seed by seed.

    Args:
        ours, theirs: one value a seed, in the same order of seeds.
    """
    if len(ours) != len(theirs):
        raise DataError(f"paired values must come from the same seeds, got {len(ours)} and {len(theirs)}")
    return t_interval([a - b for a, b in zip(ours, theirs, strict=True)], level)


def paired_bootstrap(
    ours: NDArray[Any],
    theirs: NDArray[Any],
    labels: Sequence[int] | None,
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Interval of a difference in mean per-class accuracy when the test images, not the training, are drawn again.

    Choose it with fewer than `MIN_SEEDS` runs. Images are drawn within their class, because the figure is a mean over classes; percentiles
    of the resampled differences are the ends. It says nothing of what another training run would change, and its basis names that.

    Of a class of n images n - 1 are drawn: with n, small classes would seem to vary by (n - 1) / n of what they do. Classes of one image
    are drawn from together. Fewer than `MIN_IMAGES` images in all have no interval. Where no image differs from another of its class, draws
    have no width and would pass for certainty: the ends are then what a share of unseen images, as large as so many can hide, may change.

    Args:
        ours, theirs: (runs, images), how right each run was on each test image: booleans, or shares where several runs are one value.
        labels: (images,), true classes; None for a difference in the share of all images, drawn from all of them.
        level: coverage, in (0, 1).
        resamples: draws of the test set.
        seed: of the draws.
    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; Rao and Wu, JASA 83, 1988 (n - 1 of n); Clopper
    and Pearson, Biometrika 26, 1934 (0 of n).
    """
    first, second = np.atleast_2d(np.asarray(ours, dtype=np.float64)), np.atleast_2d(np.asarray(theirs, dtype=np.float64))
    if first.shape != second.shape:
        raise DataError(f"paired runs must have one shape, got {first.shape} and {second.shape}")
    return _resampled(first - second, labels, (-1.0, 1.0), level, resamples, seed)


def _resampled(
    values: NDArray[np.float64], labels: Sequence[int] | None, bounds: tuple[float, float], level: float, resamples: int, seed: int
) -> Interval:
    """The interval over images of values (runs, images) between bounds."""
    truth = np.zeros(values.shape[1], dtype=np.int64) if labels is None else np.asarray(labels)
    if values.shape[1] != truth.size or truth.size == 0:
        raise DataError(f"runs and labels must have one length, got {values.shape} and {truth.shape}")
    own = values.mean(axis=0)  # (images,)
    generator, runs = np.random.default_rng(seed), len(values)
    present, place, shown = np.unique(truth, return_inverse=True, return_counts=True)
    value = float((np.bincount(place, own) / shown).mean())
    if truth.size < MIN_IMAGES:
        return Interval(value=value, runs=runs, basis=FEW)
    drawn = np.zeros(resamples)
    for label in present[shown > 1]:
        drawn += _drawn(own[truth == label], resamples, generator) / len(present)
    if alone := int((shown == 1).sum()):
        drawn += _drawn(own[np.isin(truth, present[shown == 1])], resamples, generator) * alone / len(present)
    low, high = ends(drawn, value, bounds, hidden(shown, level), level=level, seen=(own.min(), own.max()))
    return Interval(value=value, low=low, high=high, runs=runs, basis=basis_of_runs(runs))


def ends(
    drawn: NDArray[Any],
    value: float,
    bounds: tuple[float, float],
    unseen: float,
    *,
    level: float = 0.95,
    seen: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """The ends of an interval of resampled values: their percentiles, or, where those have no width, what unseen images may change.

    Args:
        drawn: (resamples,), the value of each drawn test set.
        value: of the test set itself.
        bounds: the least and largest value that an image can have.
        unseen: the share of images that may be unlike all that were seen; see `hidden`.
        level: coverage, in (0, 1).
        seen: the least and largest value among the images seen; None where all have that of the set.
    """
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    if high - low < _WIDTH:
        least, most = (value, value) if seen is None else seen
        low, high = max(bounds[0], value - unseen * (most - bounds[0])), min(bounds[1], value + unseen * (bounds[1] - least))
        low, high = min(low, value), max(high, value)  # of values beyond the bounds, such as nats
    return float(low), float(high)


def hidden(shown: NDArray[Any], level: float) -> float:
    """The share of unseen images that may be unlike the seen ones, weighed by class, where none was. shown: images of each class.

    The larger of Clopper and Pearson's bound on as many equally weighted images as say as much (Kish), and of that on one class alone.
    """
    miss = (1 - level) / 2
    together = 1 - miss ** (float((1 / shown).sum()) / len(shown) ** 2)
    return float(max(together, (1 - miss ** (1 / shown)).max() / len(shown)))


def _drawn(images: NDArray[Any], resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """(resamples,) means of n - 1 of n images, drawn with replacement; of a single one its own."""
    values, times = np.unique(images, return_counts=True)  # images alike are one cell: a few numbers a draw, not one an image
    count = int(times.sum())
    taken = max(1, count - 1)
    found: NDArray[np.float64] = generator.multinomial(taken, times / count, size=resamples) @ values / taken
    return found


def bootstrap(ours: NDArray[Any], labels: Sequence[int] | None, *, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> Interval:
    """Interval of a mean per-class accuracy over drawn test images; see `paired_bootstrap`.

    Args:
        ours: (runs, images), how right each run was.
    """
    return _resampled(np.atleast_2d(np.asarray(ours, dtype=np.float64)), labels, (0.0, 1.0), level, resamples, seed)


def share(right: NDArray[np.bool_], level: float = 0.95) -> Interval:
    """A share of images with its exact interval over images, of one run.

    Args:
        right: (images,).
    Reference: Clopper and Pearson, Biometrika 26, 1934.
    """
    from scipy import stats

    found = stats.binomtest(int(np.sum(right)), len(right)).proportion_ci(level, method="exact")
    return Interval(value=float(np.mean(right)), low=float(found.low), high=float(found.high), basis=basis_of_runs(1))


def basis_of_runs(runs: int) -> str:
    """How an interval that holds test images but not seeds is labelled: "one training run"."""
    count = _NUMERALS[runs] if runs < len(_NUMERALS) else str(runs)
    return f"{count} training run{'' if runs == 1 else 's'}"


def verdict(difference: Interval) -> Verdict:
    """What a paired difference says: "helps" or "hurts" where its interval leaves out 0, else "no evidence"."""
    if difference.low is None or difference.high is None:
        return "no evidence"
    if difference.low > 0:
        return "helps"
    return "hurts" if difference.high < 0 else "no evidence"
