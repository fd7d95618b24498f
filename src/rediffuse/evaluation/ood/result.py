"""Figures of unknown inputs: a typed value that saves itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import ConfigError
from rediffuse.evaluation.ood import metrics
from rediffuse.evaluation.ood.resampling import interval, resampled_auroc
from rediffuse.evaluation.ood.scores import HEADLINE, PAPER
from rediffuse.evaluation.ood.scoring import Group, Scored
from rediffuse.evaluation.saved import Content, Saved
from rediffuse.evaluation.statistics import Interval

RESAMPLES = 1000
BINS = 40
MEANS: Mapping[str, tuple[str, ...]] = {"headline": HEADLINE, "paper": PAPER}
"""Means over scores that are reported beside the scores themselves."""
GROUPS: tuple[Group, ...] = ("near", "far")


@dataclass(frozen=True, kw_only=True)
class OodRow:
    """One classifier, one unknown set, one score. AUPR with known and with unknown images as positives; FPR95 with unknown ones."""

    model: str
    set: str
    group: Group
    images: int
    score: str
    auroc: Interval
    aupr_known: float
    aupr_unknown: float
    fpr95: float


@dataclass(frozen=True, kw_only=True)
class OodMean:
    """A classifier's mean over the sets of a group; `score` is a score, or "headline" or "paper" for the mean over those scores, `of`."""

    model: str
    group: Group
    score: str
    of: tuple[str, ...]
    auroc: Interval
    aupr_known: float
    aupr_unknown: float
    fpr95: float


@dataclass(frozen=True, kw_only=True)
class OodGain:
    """AUROC of `ours` minus that of `theirs` on the same images, a mean over the sets of a group."""

    ours: str
    theirs: str
    group: Group
    score: str
    auroc: Interval


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How a score falls in each set: edges (bins + 1), and counts by set; what lies outside is in the first and last bin."""

    model: str
    score: str
    edges: tuple[float, ...]
    counts: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class OodResult(Saved):
    """How well classifiers tell unknown inputs, with intervals over test images; another training run is not in them.

    Attributes:
        models, scores: names, in the order asked.
        known, known_images: the classifiers' own test set.
        rows, means, gains: figures; gains are of each model minus each later one.
        histograms: one a classifier and score.
        notes: what was left out, and why.
    """

    models: tuple[str, ...]
    scores: tuple[str, ...]
    known: str
    known_images: int
    rows: tuple[OodRow, ...]
    means: tuple[OodMean, ...]
    gains: tuple[OodGain, ...]
    histograms: tuple[Histogram, ...]
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def mean(self, model: str, group: Group, score: str = "headline") -> OodMean | None:
        """A classifier's mean over a group; None where the group or one of the scores was not asked."""
        return next((row for row in self.means if (row.model, row.group, row.score) == (model, group, score)), None)

    def gain(self, ours: str, theirs: str, group: Group, score: str = "headline") -> Interval | None:
        """AUROC of ours minus theirs, paired; either order of names. None where it was not asked."""
        for row in self.gains:
            if (row.group, row.score) == (group, score) and (row.ours, row.theirs) == (ours, theirs):
                return row.auroc
            if (row.group, row.score) == (group, score) and (row.ours, row.theirs) == (theirs, ours):
                return _negated(row.auroc)
        return None

    def headline(self) -> dict[str, Interval | float]:
        """`near_auroc`, `far_auroc` of the first classifier, and with a second `near_auroc_gain`, `far_auroc_gain`: first minus second.

        Beside them `..._paper`, the mean of the paper's four scores.
        """
        found: dict[str, Interval | float] = {}
        for group in GROUPS:
            for score, ending in (("headline", ""), ("paper", "_paper")):
                own = self.mean(self.models[0], group, score)
                if own is not None:
                    found[f"{group}_auroc{ending}"] = own.auroc
                gain = self.gain(self.models[0], self.models[1], group, score) if len(self.models) > 1 else None
                if gain is not None:
                    found[f"{group}_auroc_gain{ending}"] = gain
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def content(self) -> Content:
        """The headline; the rows are the tables `row`, `mean`, `gain` and `histogram`."""
        tables: dict[str, tuple[Any, ...]] = {"row": self.rows, "mean": self.means, "gain": self.gains, "histogram": self.histograms}
        rows = [{"table": table, **asdict(row)} for table, found in tables.items() for row in found]
        said = "; ".join(f"{key}: {value}" for key, value in self.settings.items())
        notes = [
            f"known: {self.known}, {self.known_images} images",
            *([f"settings: {said}"] if said else []),
            self._headline_told(),
            *self.notes,
        ]
        return Content(headline=self.headline(), rows=rows, seconds=self.seconds, notes=notes)

    def _headline_told(self) -> str:
        scores = ", ".join(HEADLINE)
        return f"headline: the mean of {scores}" if set(HEADLINE) <= set(self.scores) else f"no headline mean, which is of {scores}"


def judge(scored: Scored, *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0, bins: int = BINS) -> OodResult:
    """Figures of scores: each set, means over near and far sets, paired differences between classifiers, histograms.

    Args:
        scored: of `scoring.score_sets`.
        resamples: drawn test sets behind each interval.
        level: coverage, in (0, 1).
        seed: of the draws.
        bins: of the histograms.
    """
    if not 0 < level < 1 or resamples < 1 or bins < 1:
        raise ConfigError(f"level must be in (0, 1), resamples and bins at least 1, got {level}, {resamples} and {bins}")
    value, drawn = resampled_auroc(scored, resamples, seed)
    rows = _rows(scored, value, drawn, level)
    return OodResult(
        models=scored.models,
        scores=scored.scores,
        known=scored.sets[0].name,
        known_images=len(scored.sets[0]),
        rows=rows,
        means=_means(scored, rows, value, drawn, level),
        gains=_gains(scored, value, drawn, level),
        histograms=_histograms(scored, bins),
        seconds=scored.seconds,
        settings=scored.settings,
        notes=scored.notes,
    )


def _rows(scored: Scored, value: NDArray[Any], drawn: NDArray[Any], level: float) -> tuple[OodRow, ...]:
    found = []
    for place in np.ndindex(*value.shape):
        model, number, score = place
        part = scored.sets[number + 1]
        pair = scored.sets[0].values[model, :, score].numpy(), part.values[model, :, score].numpy()
        found.append(
            OodRow(
                model=scored.models[model],
                set=part.name,
                group=part.group,
                images=len(part),
                score=scored.scores[score],
                auroc=interval(scored, [number], float(value[place]), drawn[(slice(None), *place)], level=level),
                aupr_known=metrics.aupr_known(*pair),
                aupr_unknown=metrics.aupr_unknown(*pair),
                fpr95=metrics.fpr95(*pair),
            )
        )
    return tuple(found)


def _averages(scored: Scored) -> list[tuple[Group, str, list[int], list[int]]]:
    """(group, name, its sets, its scores) of every mean that can be taken."""
    names = {score: (score,) for score in scored.scores} | {key: own for key, own in MEANS.items() if set(own) <= set(scored.scores)}
    found = []
    for group in GROUPS:
        sets = [number for number, part in enumerate(scored.sets[1:]) if part.group == group]
        found += [(group, key, sets, [scored.scores.index(score) for score in own]) for key, own in names.items() if sets]
    return found


def _means(scored: Scored, rows: Sequence[OodRow], value: NDArray[Any], drawn: NDArray[Any], level: float) -> tuple[OodMean, ...]:
    found = []
    for place, model in enumerate(scored.models):
        for group, key, sets, scores in _averages(scored):
            names = {scored.scores[score] for score in scores}
            own = [row for row in rows if row.model == model and row.group == group and row.score in names]
            rest = {name: float(np.mean([getattr(row, name) for row in own])) for name in ("aupr_known", "aupr_unknown", "fpr95")}
            auroc = interval(scored, sets, _mean(value[place], sets, scores), _mean(drawn[:, place], sets, scores), level=level)
            found.append(OodMean(model=model, group=group, score=key, of=MEANS.get(key, (key,)), auroc=auroc, **rest))
    return tuple(found)


def _gains(scored: Scored, value: NDArray[Any], drawn: NDArray[Any], level: float) -> tuple[OodGain, ...]:
    found = []
    for first, ours in enumerate(scored.models):
        for second in range(first + 1, len(scored.models)):
            for group, key, sets, scores in _averages(scored):
                gap = _mean(value[first] - value[second], sets, scores)
                gaps = _mean(drawn[:, first] - drawn[:, second], sets, scores)
                auroc = interval(scored, sets, gap, gaps, level=level, paired=True)
                found.append(OodGain(ours=ours, theirs=scored.models[second], group=group, score=key, auroc=auroc))
    return tuple(found)


def _histograms(scored: Scored, bins: int) -> tuple[Histogram, ...]:
    """Common edges between the 0.1 % and 99.9 % points of all sets; further values are counted at the ends."""
    found = []
    for model, score in np.ndindex(len(scored.models), len(scored.scores)):
        values = {part.name: part.values[model, :, score].numpy() for part in scored.sets}
        ends = np.array([np.quantile(own, [0.001, 0.999]) for own in values.values()])
        low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
        counts = {name: tuple(np.histogram(own.clip(edges[0], edges[-1]), edges)[0].tolist()) for name, own in values.items()}
        found.append(Histogram(model=scored.models[model], score=scored.scores[score], edges=tuple(edges.tolist()), counts=counts))
    return tuple(found)


def _mean(values: NDArray[Any], sets: Sequence[int], scores: Sequence[int]) -> Any:
    """Over some sets and scores, the last two axes."""
    return values[..., sets, :][..., scores].mean(axis=(-2, -1))


def _negated(found: Interval) -> Interval:
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return Interval(value=-found.value, low=low, high=high, runs=found.runs, basis=found.basis)
