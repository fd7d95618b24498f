"""What certificates add up to: accuracy at a radius, for each sigma and with sigma chosen on other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.certify.bounds import ABSTAIN, ceiling
from rediffuse.evaluation.certify.rows import Certificate
from rediffuse.evaluation.certify.smoothing import Smoothing
from rediffuse.evaluation.results import Figure
from rediffuse.evaluation.saved import Content, Saved
from rediffuse.evaluation.statistics import Interval, paired_bootstrap
from rediffuse.evaluation.statistics import share as share

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""L2 on [0, 1] images, at which tables stand."""
FOLDS = 2


@dataclass(frozen=True, kw_only=True)
class Series:
    """The certificates of one model at one sigma, in the order of the images.

    Attributes:
        ceiling: the largest radius that its number of draws can certify; above it a curve is 0 whatever the model.
    """

    model: str
    sigma: float
    ceiling: float
    rows: tuple[Certificate, ...]

    def right(self, radius: float) -> NDArray[np.bool_]:
        """(images,) whether each is rightly named and certain to be so within a radius."""
        return np.array([row.correct and row.radius >= radius for row in self.rows], dtype=bool)

    def accuracy(self, radius: float) -> float:
        """Certified accuracy: the share of those."""
        return float(self.right(radius).mean())

    def curve(self, points: int = 101) -> tuple[tuple[float, float], ...]:
        """(radius, certified accuracy) from 0 to the ceiling."""
        return tuple((float(radius), self.accuracy(float(radius))) for radius in np.linspace(0, self.ceiling, points))

    @property
    def abstained(self) -> float:
        """Share of images of which nothing is certain."""
        return float(np.mean([row.predict == ABSTAIN for row in self.rows]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Envelope:
    """A model at the best sigma of each radius, which was chosen on other images than those that it is judged on.

    Attributes:
        radii: (R,).
        sigmas: for each radius the sigma that each fold was judged at.
        right: (R, images) bool.
    """

    model: str
    radii: tuple[float, ...]
    sigmas: tuple[tuple[float, ...], ...]
    right: NDArray[np.bool_]

    def accuracy(self, radius: float) -> float:
        return float(self.at(radius).mean())

    def at(self, radius: float) -> NDArray[np.bool_]:
        """(images,) right at one of the radii."""
        if radius not in self.radii:
            raise ConfigError(f"this envelope knows the radii {', '.join(f'{each:g}' for each in self.radii)}, got {radius:g}")
        found: NDArray[np.bool_] = self.right[self.radii.index(radius)]
        return found


@dataclass(frozen=True, kw_only=True)
class Certified(Saved):
    """Certificates of models that all classified the same draws.

    Attributes:
        smoothing: N0, N, alpha and seed.
        smoother: "plain", or the denoiser's class and the beginning of its hash.
        images: their number.
        models: names.
        series: one for each model and sigma.
        timed: models whose times add up: one of each call where they were made in several; the first one where there is none.
    """

    smoothing: Smoothing
    smoother: str
    images: int
    models: tuple[str, ...]
    series: tuple[Series, ...]
    timed: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """That all certificates took, also those of an earlier life; not what other models took for tables that were lost."""
        timed = self.timed or self.models[:1]  # an image's time is that of all models of a call
        return sum(row.seconds for series in self.series if series.model in timed for row in series.rows)

    def find(self, model: str, sigma: float) -> Series:
        """The certificates of one model at one sigma. Raises ConfigError with what there is."""
        for series in self.series:
            if (series.model, series.sigma) == (model, sigma):
                return series
        known = f"{', '.join(self.models)} at {', '.join(map(str, self.smoothing.sigmas))}"
        raise ConfigError(f"no certificates of {model!r} at sigma {sigma:g}; there are those of {known}")

    def ceiling(self, sigma: float) -> float:
        return ceiling(sigma, self.smoothing.draws, self.smoothing.alpha)

    def envelope(self, model: str, radii: Sequence[float] = RADII, *, seed: int = 0) -> Envelope:
        """The model at the sigma of each radius that was best on the other half of the images; halves are drawn by chance.

        Taking the best sigma of the very images that are judged, as is often done, adds what chance gives to the best of several. A sigma
        whose draws cannot reach a radius is not chosen for it, where another's can: on a half without a certificate all are as good.
        """
        if self.images < FOLDS:
            raise DataError(f"sigma is chosen on other images than it is judged on: at least {FOLDS} are needed, got {self.images}")
        fold = np.random.default_rng(seed).permutation(self.images) % FOLDS
        mine = [self.find(model, sigma) for sigma in self.smoothing.sigmas]
        chosen, right = [], np.zeros((len(radii), self.images), dtype=bool)
        for place, radius in enumerate(radii):
            able = [series for series in mine if series.ceiling >= radius] or mine
            each = np.stack([series.right(radius) for series in able])  # (sigmas, images)
            best, right[place] = choose(each, fold)
            chosen.append(tuple(able[index].sigma for index in best))
        return Envelope(model=model, radii=tuple(radii), sigmas=tuple(chosen), right=right)

    def gain(self, model: str, over: str, radius: float, sigma: float | None = None) -> Interval:
        """How much more of the images one model certifies at a radius than another; paired, over resampled images.

        Args:
            sigma: of both; None takes the envelopes.
        """
        if sigma is None:
            return difference(self.envelope(model, [radius]).right[0], self.envelope(over, [radius]).right[0])
        return difference(self.find(model, sigma).right(radius), self.find(over, sigma).right(radius))

    def table(self, radii: Sequence[float] = RADII) -> list[dict[str, Any]]:
        """A row for each model, sigma and radius, and for each model's envelope (sigma "chosen")."""
        rows: list[dict[str, Any]] = []
        for series in self.series:
            beside = {"model": series.model, "sigma": series.sigma, "ceiling": series.ceiling, "abstained": series.abstained}
            rows += [{**beside, "radius": radius, **_interval(series.right(radius))} for radius in radii]
        for model in self.models if self.images >= FOLDS else ():
            found = self.envelope(model, radii)
            for place, radius in enumerate(radii):
                judged_at = " and ".join(f"{sigma:g}" for sigma in sorted(set(found.sigmas[place])))
                rows.append({"model": model, "sigma": "chosen", "radius": radius, **_interval(found.right[place]), "judged_at": judged_at})
        return rows

    def to_json(self) -> dict[str, Any]:
        """Everything: settings, ceilings, table, paired differences of each two models (the earlier minus the later), and each curve."""
        sigmas: list[float | None] = [*self.smoothing.sigmas, *([None] if self.images >= FOLDS else [])]
        differences = [
            {"model": model, "over": over, "sigma": "chosen" if sigma is None else sigma, "radius": radius, **gain.to_json()}
            for model, over in combinations(self.models, 2)
            for sigma in sigmas
            for radius in RADII
            for gain in (self.gain(model, over, radius, sigma),)
        ]
        return {
            "smoothing": self.smoothing.to_json(),
            "smoother": self.smoother,
            "images": self.images,
            "models": list(self.models),
            "ceilings": {f"{sigma:g}": self.ceiling(sigma) for sigma in self.smoothing.sigmas},
            "seconds": self.seconds,
            "table": self.table(),
            "differences": differences,
            "curves": [
                {"model": each.model, "sigma": each.sigma, "points": [list(point) for point in each.curve()]} for each in self.series
            ],
        }

    def content(self) -> Content:
        """The table as rows; headline MODEL_at_050 (envelope), and the first one's gain_over_OTHER_at_050."""
        headline: dict[str, Figure | Interval | float] = {}
        for radius in RADII if self.images >= FOLDS else ():
            key = f"at_{round(100 * radius):03d}"
            for model in self.models:
                headline[f"{model}_{key}" if len(self.models) > 1 else key] = share(self.envelope(model, [radius]).right[0])
            for other in self.models[1:]:
                headline[f"gain_over_{other}_{key}"] = self.gain(self.models[0], other, radius)
        return Content(headline=headline, rows=self.table(), seconds=self.seconds, notes=self.conditions())

    def conditions(self) -> list[str]:
        """What must stand beside every figure: draws, images, ceilings."""
        plan = self.smoothing
        tops = ", ".join(f"{self.ceiling(sigma):.3f} at sigma {sigma:g}" for sigma in plan.sigmas)
        return [
            f"{self.images} images; N0 = {plan.selection}, N = {plan.draws} draws an image, alpha = {plan.alpha:g}, seed {plan.seed}",
            f"smoother: {self.smoother}",
            f"no radius above these can be certified with N = {plan.draws}: {tops}",
            "sigma 'chosen': best on one half of the images, judged on the other",
        ]


def choose(right: NDArray[np.bool_], fold: NDArray[np.int64]) -> tuple[list[int], NDArray[np.bool_]]:
    """The best row on the other images for each fold, and (images,) what each image is worth at its fold's.

    Args:
        right: (sigmas, images); fold: (images,) below FOLDS.
    """
    best = [int(right[:, fold != part].mean(1).argmax()) for part in range(FOLDS)]
    return best, right[np.array(best)[fold], np.arange(right.shape[1])]


def difference(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Interval:
    """The paired difference of two certified accuracies on the same images, also of two runs: ours - theirs."""
    return paired_bootstrap(ours[None], theirs[None], None)


def _interval(right: NDArray[np.bool_]) -> Mapping[str, Any]:
    found = share(right)
    return {"certified_accuracy": found.value, "low": found.low, "high": found.high}
