"""Classifiers that were asked apart, as if they had been asked together: pairs are compared by what each said of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rediffuse.evaluation.accuracy import Accuracy
from rediffuse.evaluation.attacking import Attacked
from rediffuse.evaluation.calibrating import Calibrations
from rediffuse.evaluation.certify.result import Certified
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.entropy import EntropyCurve
from rediffuse.evaluation.ood.scoring import Scored
from rediffuse.evaluation.suite.columns import Columns


def accuracies(found: Sequence[Mapping[str, Accuracy]], names: Sequence[str]) -> Mapping[str, Accuracy]:
    every = {name: own for each in found for name, own in each.items()}
    return {name: every[name] for name in names}


def calibrations(found: Sequence[Calibrations], names: Sequence[str]) -> Calibrations:
    every = {own.model: own for each in found for own in each.models}
    return replace(found[0], models=tuple(every[name] for name in names), seconds=_seconds(found))


def corruptions(found: Sequence[CorruptionResult], names: Sequence[str]) -> CorruptionResult:
    places = _places(found, names)
    right = np.stack([each.right[row] for each, row in places])
    clean = [each.clean[row] for each, row in places if each.clean is not None]
    return replace(
        found[0], models=tuple(names), right=right, clean=np.stack(clean) if len(clean) == len(names) else None, seconds=_seconds(found)
    )


def entropies(found: Sequence[EntropyCurve], names: Sequence[str]) -> EntropyCurve:
    places = _places(found, names)
    right = [each.right[row] for each, row in places if each.right is not None]
    return replace(
        found[0],
        models=tuple(names),
        classes=tuple(each.classes[row] for each, row in places),
        entropies=np.stack([each.entropies[row] for each, row in places]),
        right=np.stack(right) if len(right) == len(names) else None,
        seconds=_seconds(found),
    )


def columns(found: Sequence[Columns], names: Sequence[str]) -> Columns:
    """names: of the classifiers, without their ensembles. Where some lack corrupted images all do, for the reasons of those."""
    every = dict(pair for each in found for pair in each.pairs)
    both = [*names, *(every[name] for name in names)]
    corrupted = [each.corrupted for each in found if each.corrupted is not None]
    return replace(
        found[0],
        pairs=tuple((name, every[name]) for name in names),
        clean=calibrations([each.clean for each in found], both),
        corrupted=corruptions(corrupted, both) if len(corrupted) == len(found) else None,
        reason="; ".join(dict.fromkeys(each.reason for each in found if each.reason)),
    )


def certificates(found: Sequence[Certified], names: Sequence[str]) -> Certified:
    every = {(own.sigma, own.model): own for each in found for own in each.series}
    series = tuple(every[sigma, name] for sigma in found[0].smoothing.sigmas for name in names)
    return replace(found[0], models=tuple(names), series=series, timed=tuple(each.models[0] for each in found))


def attacks(found: Sequence[Mapping[str, Attacked]], names: Sequence[str]) -> Mapping[str, Attacked]:
    """names: of the victims. By norm."""
    joined = {}
    for norm, first in found[0].items():
        every = {own.victim: own for each in found for own in each[norm].victims}
        joined[norm] = replace(first, victims=tuple(every[name] for name in names), seconds=_seconds([each[norm] for each in found]))
    return joined


def scored(found: Sequence[Scored], names: Sequence[str]) -> Scored:
    """With the scores that all of them have."""
    places = _places(found, names)
    scores = tuple(name for name in found[0].scores if all(name in each.scores for each in found))
    columns = {id(each): [each.scores.index(name) for name in scores] for each in found}
    sets = tuple(
        replace(part, values=torch.stack([each.sets[place].values[row][:, columns[id(each)]] for each, row in places]))
        for place, part in enumerate(found[0].sets)
    )
    notes = tuple(dict.fromkeys(note for each in found for note in each.notes))
    return replace(found[0], models=tuple(names), scores=scores, sets=sets, seconds=_seconds(found), notes=notes)


def _places(found: Sequence[Any], names: Sequence[str]) -> list[tuple[Any, int]]:
    """(result, row in it) of each classifier."""
    every = {name: (each, row) for each in found for row, name in enumerate(each.models)}
    return [every[name] for name in names]


def _seconds(found: Sequence[Any]) -> float:
    return float(sum(each.seconds for each in found))
