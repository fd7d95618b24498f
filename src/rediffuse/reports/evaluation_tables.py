"""The tables of an evaluation as data for a page: values with intervals, differences of two models below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rediffuse.evaluation.accuracy import Accuracy
from rediffuse.evaluation.calibrating import Calibrations
from rediffuse.evaluation.calibration_gain import METRICS
from rediffuse.evaluation.corruptions.constants import COMMON
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.matching import told_apart
from rediffuse.evaluation.ood.result import GROUPS, OodResult
from rediffuse.evaluation.ood.scoring import Group
from rediffuse.evaluation.statistics import Interval, Verdict, share, verdict
from rediffuse.reports.words import MINUS, accuracy_range, percent, points, points_range

SWATCHES = ("first", "second")
SIGNS = {"helps": "▲ better", "no evidence": "● no evidence", "hurts": "▼ worse"}
MOST_CLASSES = 40
"""Above it a confusion matrix is no longer read; the worst confusions are listed instead."""
SCORE_TITLES = {"headline": "mean of MSP, energy, KNN", "paper": "mean of ASH-B, MSP, ReAct, SCALE"}
Row = dict[str, Any]


def better(gain: Interval, *, lower: bool = False) -> Verdict:
    """Whether a difference is to the good; lower: of an error."""
    low, high = (None if end is None else -end for end in (gain.high, gain.low))
    return verdict(Interval(value=-gain.value, low=low, high=high) if lower else gain)


def cell(value: str, range_: str = "", strength: float | None = None) -> Row:
    """strength: 0 to 1, how deep a heat map colours the cell."""
    return {"value": value, "range": range_, "heat": None if strength is None else round(70 * min(1.0, max(0.0, strength)))}


def of(found: Interval | None) -> Row:
    return cell("") if found is None else cell(percent(found.value), accuracy_range(found))


def gained(found: Interval | None) -> Row:
    return cell("") if found is None else cell(points(found.value), points_range(found))


def row(name: str, cells: Sequence[Row], *, swatch: str = "", gain: bool = False, word: str = "") -> Row:
    return {"name": name, "cells": list(cells), "swatch": swatch, "gain": gain, "word": word}


def table(caption: str, head: str, columns: Sequence[str], rows: Sequence[Row], *, heat: bool = False) -> dict[str, Any]:
    return {"caption": caption, "head": head, "columns": list(columns), "rows": list(rows), "heat": heat}


def heat_map(found: CorruptionResult, model: str) -> dict[str, Any]:
    """Accuracy of a model: a row a corruption, a column a severity, then their mean."""
    rows = []
    clean = found.clean_accuracy(model)
    for name, comparable, values in zip(found.corruptions, found.comparable, found.table(model), strict=True):
        cells = [cell(percent(value), strength=value) for value in [*map(float, values), float(values.mean())]]
        rows.append(row(name.replace("_", " ") + ("" if comparable else " *"), cells))
    if any(name in COMMON for name in found.corruptions):
        means = [found.mean(model, severities=(severity,)).value for severity in found.severities]
        rows.append(row("mean", [cell(percent(value), strength=value) for value in [*means, sum(means) / len(means)]]))
    caption = model if clean is None else f"{model}: {percent(clean)} % clean"
    return table(caption, "Accuracy in %", [*map(str, found.severities), "mean"], rows, heat=True)


def corruption_groups(found: CorruptionResult) -> dict[str, Any]:
    """Means over groups and over all, each with its interval, and the paired difference."""
    groups = found.groups()
    most = max(found.severities)
    columns = ["all", f"severity {most}", *(name.replace("_", " ") for name in groups)]
    rows = []
    for place, model in enumerate(found.models):
        cells = [of(found.mean(model)), of(found.mean(model, severities=(most,))), *(of(found.group(name, model)) for name in groups)]
        rows.append(row(model, cells, swatch=SWATCHES[place % 2]))
    for other in found.models[1:]:
        first = found.models[0]
        gains = [found.difference(first, other), found.difference(first, other, severities=(most,))]
        gains += [found.difference(first, other, corruptions=found.members(name)) for name in groups]
        rows.append(row(f"over {other}", [gained(gain) for gain in gains], gain=True, word=SIGNS[verdict(gains[0])]))
    return table("Means with 95 % intervals over images", "Accuracy in %", columns, rows)


def corruption_gains(found: CorruptionResult, model: str, other: str) -> dict[str, Any]:
    """The paired difference under each corruption: over all severities and at the hardest."""
    most = max(found.severities)
    rows = []
    for name, comparable in zip(found.corruptions, found.comparable, strict=True):
        gains = [found.difference(model, other, corruptions=(name,), severities=at) for at in (None, (most,))]
        title = name.replace("_", " ") + ("" if comparable else " *")
        rows.append(row(title, [gained(gain) for gain in gains], word=SIGNS[verdict(gains[0])]))
    caption = f"{model} over {other}, each corruption; better or worse: over all severities"
    return table(caption, "Points", ["all severities", f"severity {most}"], rows)


def accuracy_table(found: dict[str, Accuracy], calibrations: Calibrations | None) -> dict[str, Any]:
    rows = []
    for place, (model, value) in enumerate(found.items()):
        top1 = cell(percent(value.top1))
        if calibrations is not None:
            top1 = of(share(calibrations.find(model).as_is.right))
        rows.append(row(model, [top1, cell(percent(value.mean_per_class)), cell(f"{value.images:,}")], swatch=SWATCHES[place % 2]))
    if calibrations is not None and len(found) > 1:
        first, second = list(found)[:2]
        gain = calibrations.difference(first, second, "accuracy")
        rows.append(row(f"over {second}", [gained(gain), cell(""), cell("")], gain=True, word=SIGNS[verdict(gain)]))
    return table("With 95 % intervals over images", "Accuracy in %", ["top-1", "mean over classes", "images"], rows)


def confusion(model: str, value: Accuracy) -> dict[str, Any]:
    """The matrix in per cent of each true class; of many classes what is confused most."""
    totals, names = value.totals, told_apart(value.classes)
    if len(names) > MOST_CLASSES:
        worst = sorted(((n, a, b) for a, b, n in value.cells if a != b), reverse=True)[:20]
        rows = [row(names[a], [cell(names[b]), cell(str(n)), cell(percent(n / float(totals[a])))]) for n, a, b in worst]
        return table(f"{model}: most frequent confusions", "Is", ["is called", "images", "% of the class"], rows)
    rows = []
    for true, name in enumerate(names):
        shares = [float(count) / total if (total := int(totals[true])) else 0.0 for count in value.counts[true]]
        rows.append(row(name, [cell(f"{100 * share_:.0f}" if share_ else "", strength=share_) for share_ in shares]))
    return table(f"{model}: what each class (row) is called, %", "Is", names, rows, heat=True)


def calibration_table(found: Calibrations) -> dict[str, Any]:
    """Errors in points and scores; the difference is the first model's minus the second's, so that less is better.

    Under an ECE stands what chance alone makes of true confidences.
    """
    names = {"ece": "ECE, %", "adaptive_ece": "adaptive ECE, %", "brier": "Brier, 0 to 2", "nll": "NLL, nats"}
    metrics = [metric for metric in METRICS if metric in names]
    rows = []
    for place, each in enumerate(found.models):
        values = each.row()
        cells = [cell(percent(values[metric]) if "ece" in metric else f"{values[metric]:.3f}") for metric in metrics]
        cells[metrics.index("ece")] = cell(percent(values["ece"]), f"chance: up to {percent(values['ece_by_chance_95'])}")
        rows.append(row(each.model, cells, swatch=SWATCHES[place % 2]))
    if len(found.models) > 1:
        first, second = (each.model for each in found.models[:2])
        gaps = {metric: found.difference(first, second, metric) for metric in metrics}
        cells = [gained(gap) if "ece" in metric else number(gap) for metric, gap in gaps.items()]
        rows.append(row(f"minus {second}", cells, gain=True, word=SIGNS[better(gaps["ece"], lower=True)]))
    return table("Less is better in every column", "", [names[metric] for metric in metrics], rows)


def number(found: Interval, digits: int = 3) -> Row:
    """A difference that is no share."""
    text = [f"{value:+.{digits}f}".replace("-", MINUS) for value in (found.value, found.low or 0.0, found.high or 0.0)]
    return cell(text[0], f"{text[1]} to {text[2]}" if found.low is not None else "")


def unknown_summary(found: OodResult) -> dict[str, Any]:
    """Means over near and far sets under the scores of the headline and of the paper, or what there is; paired differences below."""
    groups, scores = _groups(found), _means(found)
    rows = []
    for score in [name for name in SCORE_TITLES if name in scores] or scores[:1]:
        for place, model in enumerate(found.models):
            rows.append(row(f"{model}, {_title(score)}", _mean_cells(found, model, score), swatch=SWATCHES[place % 2]))
        if len(found.models) > 1:
            gains = [found.gain(found.models[0], found.models[1], group, score) for group in groups]
            rows.append(row(f"over {found.models[1]}", [each for gain in gains for each in (gained(gain), cell(""))], gain=True))
    return table("Means over sets", "In %", _mean_columns(groups), rows)


def unknown_details(found: OodResult) -> list[dict[str, Any]]:
    """For each model a row a score, means over sets; then a row a set, AUROC."""
    groups, scores, tables = _groups(found), _means(found), []
    for model in found.models:
        rows = [row(_title(score), _mean_cells(found, model, score)) for score in scores]
        tables.append(table(f"{model}, each score, means over sets", "In %", _mean_columns(groups), rows))
    sets = list(dict.fromkeys((each.set, each.group, each.images) for each in found.rows))
    for model in found.models:
        rows = [
            row(f"{name} ({group}, {images:,})", [of(_auroc(found, model, name, score)) for score in found.scores])
            for name, group, images in sets
        ]
        tables.append(table(f"{model}, AUROC of each set", "In %", [_title(name) for name in found.scores], rows))
    return tables


def _groups(found: OodResult) -> list[Group]:
    return [group for group in GROUPS if any(mean.group == group for mean in found.means)]


def _means(found: OodResult) -> list[str]:
    return [name for name in (*SCORE_TITLES, *found.scores) if any(mean.score == name for mean in found.means)]


def _title(score: str) -> str:
    return SCORE_TITLES.get(score, score.replace("_", "-"))


def _mean_columns(groups: Sequence[str]) -> list[str]:
    return [f"{group} {figure}" for group in groups for figure in ("AUROC", "FPR95")]


def _mean_cells(found: OodResult, model: str, score: str) -> list[Row]:
    means = [found.mean(model, group, score) for group in _groups(found)]
    return [
        each for mean in means for each in (of(None if mean is None else mean.auroc), cell("" if mean is None else percent(mean.fpr95)))
    ]


def _auroc(found: OodResult, model: str, name: str, score: str) -> Interval | None:
    return next((each.auroc for each in found.rows if (each.model, each.set, each.score) == (model, name, score)), None)


def hardest(found: CorruptionResult, model: str) -> str:
    """The corruption that takes most, in words."""
    means = found.table(model).mean(axis=1)
    place = int(means.argmin())
    return f"hardest: {found.corruptions[place].replace('_', ' ')} ({percent(float(means[place]))} %)"
