"""The calibration of classifiers on a set of images: streamed, block by block, several at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.calibration import (
    BINS,
    Judgements,
    Reliability,
    chance_error,
    fit_temperature,
    judge,
    reliability,
)
from rediffuse.evaluation.calibration_gain import METRICS, paired_gain
from rediffuse.evaluation.judged import Judged, batches, check_models
from rediffuse.evaluation.kept import Kept, fingerprint, in_blocks
from rediffuse.evaluation.results import Figure
from rediffuse.evaluation.saved import Content, Saved
from rediffuse.evaluation.statistics import Interval

BLOCK = 1024
"""Images that are kept together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """One model's calibration.

    Attributes:
        as_is: what its images say.
        temperature: fitted on other images; None where there were none.
        scaled: the same images at that temperature.
        bins: of its errors and diagrams.
    """

    model: str
    as_is: Judgements
    temperature: float | None = None
    scaled: Judgements | None = None
    bins: int = BINS

    def diagram(self, *, scaled: bool = False, equal_mass: bool = False) -> Reliability:
        """The reliability diagram, as the model is or at the temperature."""
        found = self.scaled if scaled else self.as_is
        if found is None:
            raise ConfigError(f"no temperature was fitted for {self.model}; give `calibrate` other images to fit it on")
        return reliability(found.confidence, found.right, bins=self.bins, equal_mass=equal_mass)

    def row(self) -> dict[str, Any]:
        """Figures for a table; those at the temperature end in _scaled."""
        after = {} if self.scaled is None else {f"{key}_scaled": value for key, value in self.scaled.scores(self.bins).items()}
        after.pop("accuracy_scaled", None)  # a temperature changes no decision
        chance, most = self.chance
        by_chance = {"ece_by_chance": chance, "ece_by_chance_95": most}
        return {"model": self.model, **self.as_is.scores(self.bins), **by_chance, "temperature": self.temperature, **after}

    @cached_property
    def chance(self) -> tuple[float, float]:
        """(mean, 95th percentile) of the ECE of a perfectly calibrated classifier with these confidences on as many images."""
        return chance_error(self.as_is.confidence, bins=self.bins)


@dataclass(frozen=True, kw_only=True)
class Calibrations(Saved):
    """Calibrations of models on the same images. seconds: wall time of this call."""

    models: tuple[Calibration, ...]
    images: int
    seconds: float = 0.0

    def find(self, model: str) -> Calibration:
        for each in self.models:
            if each.model == model:
                return each
        raise ConfigError(f"no calibration of {model!r}; there are {', '.join(each.model for each in self.models)}")

    def difference(self, model: str, over: str, metric: str, *, scaled: bool = False, seed: int = 0) -> Interval:
        """A figure of one model minus that of another, paired over images; see `calibration_gain.paired_gain`.

        Args:
            metric: accuracy, ece, adaptive_ece, brier or nll.
            scaled: at the temperatures.
        """
        pair = [self.find(name).scaled if scaled else self.find(name).as_is for name in (model, over)]
        ours, theirs = pair
        if ours is None or theirs is None:
            raise ConfigError(f"no temperatures were fitted for {model} and {over}; give `calibrate` other images to fit them on")
        return paired_gain([(ours, theirs)], metric, bins=self.find(model).bins, seed=seed)

    def table(self) -> list[dict[str, Any]]:
        return [each.row() for each in self.models]

    def to_json(self) -> dict[str, Any]:
        """Table, diagrams, and the paired difference of each two models, the earlier one minus the later."""
        diagrams = []
        for each in self.models:
            for scaled in (False, True) if each.scaled is not None else (False,):
                diagrams.append({"model": each.model, "scaled": scaled, **asdict(each.diagram(scaled=scaled))})
        differences = [
            {"model": model, "over": over, "metric": metric, **self.difference(model, over, metric).to_json()}
            for model, over in combinations([each.model for each in self.models], 2)
            for metric in METRICS
        ]
        told = {"images": self.images, "seconds": self.seconds, "table": self.table()}
        return {**told, "differences": differences, "diagrams": diagrams}

    def content(self) -> Content:
        """A row a model; headline METRIC (of several MODEL_METRIC), and METRIC_minus_OTHER of the first."""
        headline: dict[str, Figure | Interval | float] = {}
        for metric in METRICS:
            for each in self.models:
                headline[f"{each.model}_{metric}" if len(self.models) > 1 else metric] = each.row()[metric]
            for other in self.models[1:]:
                headline[f"{metric}_minus_{other.model}"] = self.difference(self.models[0].model, other.model, metric)
        said = f"{self.images} images; {self.models[0].bins} bins; temperatures fitted on other images"
        return Content(headline=headline, rows=self.table(), seconds=self.seconds, notes=[said])


def calibrate(
    models: Judged | Sequence[Judged],
    images: ImageSet,
    *,
    size: int,
    fit: str = "pad",
    temperature_images: ImageSet | None = None,
    bins: int = BINS,
    batch: int = 256,
    keep: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibrations:
    """How far the confidence of classifiers can be believed on a set of images.

    Memory: four numbers an image and model, and the logits of `temperature_images`.

    Args:
        models: one classifier or several; each finds the labels by name.
        size, fit: of the pictures; see `data.geometry.Fit`.
        temperature_images: other images, labelled, on which a temperature is fitted for each model; none of them may be judged too.
        bins: of the errors.
        keep: folder for finished blocks, under `temperature` and `judged`; the same call continues from it. `kept.forget` removes each.
        progress: called with (images done, images in all), those for the temperature first.
    Raises:
        ConfigError: models of one name, a folder of another call.
        DataError: no images, unknown labels, images that are both judged and fitted on.
        ModelError: logits that are NaN.
    """
    began, judged = time.perf_counter(), check_models(models)
    _check(images, temperature_images, bins)
    others = 0 if temperature_images is None else len(temperature_images)
    work = _Work(judged=judged, size=size, fit=fit, batch=batch, keep=keep, progress=progress, total=others + len(images))
    truth = [model.truth(images) for model in judged]
    temperatures = [None] * len(judged) if temperature_images is None else work.temperatures(temperature_images)
    found = work.calibrations(images, truth, temperatures, bins, others)
    return Calibrations(models=found, images=len(images), seconds=time.perf_counter() - began)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What `calibrate` was given, checked. total: images in all."""

    judged: Sequence[Judged]
    size: int
    fit: str
    batch: int
    keep: str | Path | None
    progress: Callable[[int, int], None] | None
    total: int

    def temperatures(self, images: ImageSet) -> list[float]:
        """Of each model, fitted on these images."""
        told = [model.truth(images) for model in self.judged]
        blocks = [logits for _, logits in self.logits("temperature", images, 0)]
        return [fit_temperature(torch.cat(own), labels) for own, labels in zip(zip(*blocks, strict=True), told, strict=True)]

    def calibrations(
        self, images: ImageSet, truth: Sequence[Tensor], temperatures: Sequence[float | None], bins: int, behind: int
    ) -> tuple[Calibration, ...]:
        """Of each model, at its temperature too where it has one. truth: labels of each; behind: images that came before these."""
        # Made at once: pieces between the freed logits of blocks would keep the memory of all logits in use.
        as_is = [Judgements.room(len(images)) for _ in self.judged]
        scaled = [None if temperature is None else Judgements.room(len(images)) for temperature in temperatures]
        for rows, logits in self.logits("judged", images, behind):
            for place, (own, labels, temperature) in enumerate(zip(logits, truth, temperatures, strict=True)):
                as_is[place].put(rows, judge(own, labels[rows]))
                if temperature is not None and (room := scaled[place]) is not None:
                    room.put(rows, judge(own, labels[rows], temperature))
        return tuple(
            Calibration(
                model=model.name,
                as_is=as_is[place],
                temperature=temperatures[place],
                scaled=scaled[place],
                bins=bins,
            )
            for place, model in enumerate(self.judged)
        )

    def logits(self, name: str, images: ImageSet, behind: int) -> Iterator[tuple[slice, list[Tensor]]]:
        """(rows, logits of each model) of each block, those first that lie in the folder of this name."""
        identity = {"kind": "logits", "images": fingerprint(images), "size": self.size, "fit": self.fit}
        identity |= {"models": {model.name: model.identity() for model in self.judged}}
        kept = None if self.keep is None else Kept(Path(self.keep) / name, identity)
        for rows, logits in in_blocks(
            len(images), BLOCK, lambda rows: _logits(self.judged, images[rows], self.size, self.fit, self.batch), kept
        ):
            yield rows, [logits[model.name] for model in self.judged]
            if self.progress is not None:
                self.progress(behind + rows.stop, self.total)


def _logits(judged: Sequence[Judged], part: ImageSet, size: int, fit: str, batch: int) -> dict[str, Tensor]:
    """(B, K) of each model, by name, so that the same models may be given in another order."""
    parts = [[model.logits(pictures) for model in judged] for _, pictures in batches(part, size=size, fit=fit, batch=batch)]
    return {model.name: torch.cat(own) for model, own in zip(judged, zip(*parts, strict=True), strict=True)}


def _check(images: ImageSet, others: ImageSet | None, bins: int) -> None:
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, got {bins}; {BINS} is published")
    for chosen in (images, others):
        if chosen is not None and not len(chosen):
            raise DataError(f"{chosen.name} holds no images")
    shared = set() if others is None else set(images.digests) & set(others.digests)
    if others is not None and shared:
        first = next(name for name, digest in zip(others.ids, others.digests, strict=True) if digest in shared)
        raise DataError(f"{len(shared)} images are both judged and fitted on, such as {first}; take a temperature from other images")
