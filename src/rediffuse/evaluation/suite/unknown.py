"""Unknown inputs as a part of a suite: the scores that can be had, of as many training images as fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.kept import fingerprint
from rediffuse.evaluation.ood.asking import Asked, Look, look
from rediffuse.evaluation.ood.reference import BANK, NEIGHBOURS
from rediffuse.evaluation.ood.result import OodResult, judge
from rediffuse.evaluation.ood.scores import FITTED_SCORES, SCORES
from rediffuse.evaluation.ood.scoring import bank_that_fits, left_out, score_sets
from rediffuse.evaluation.suite import settings as names
from rediffuse.evaluation.suite.asking import Asking, Part, Progress
from rediffuse.evaluation.suite.cost import Calls


@dataclass(frozen=True, kw_only=True)
class Choice:
    """scores: those that every model can be asked for; bank: training images; notes: what is left out, and why."""

    scores: tuple[str, ...]
    bank: int
    notes: tuple[str, ...]


def unknown(asking: Asking) -> Part:
    sets, choice = [*asking.near.values(), *asking.far.values()], choose(asking)

    def run(keep: Path | None, progress: Progress | None) -> OodResult:
        asked = Asked(scores=choice.scores, bank=max(1, choice.bank), seed=asking.settings.seed, leave_out=True, **asking.where)
        scored = score_sets(
            asking.models, asking.data, asked=asked, near=asking.near, far=asking.far, train=asking.train, keep=keep, progress=progress
        )
        found = judge(scored)
        return replace(found, notes=(*choice.notes, *found.notes))

    calls = Calls(classifier=len(asking.models) * (len(asking.data) + choice.bank + sum(map(len, sets))))
    key = {"near": _prints(asking.near), "far": _prints(asking.far), "train": None if asking.train is None else fingerprint(asking.train)}
    return Part(name=names.UNKNOWN, images=asking.data, calls=calls, run=run, key=key)


def choose(asking: Asking) -> Choice:
    """What can be asked of all models, from a look at each and the number of training images."""
    looks = [look(model, asking.data, **asking.where) for model in asking.models]
    lost = {name: reason for each in reversed(looks) for name, reason in each.lacking.items()}
    if not asking.train:
        lost |= dict.fromkeys(FITTED_SCORES, "no training images were given (--train)")
    elif said := _unlabelled(asking, asking.train):
        lost.setdefault("mahalanobis", said)
    bank, notes = _bank(asking, looks) if any(name not in lost for name in FITTED_SCORES) else (0, ())
    if 0 < bank < NEIGHBOURS:
        lost.setdefault("knn", f"its k is {NEIGHBOURS} and there are {bank} training images")
    scores = tuple(name for name in SCORES if name not in lost)
    notes = left_out({name: lost[name] for name in SCORES if name in lost}) + notes
    return Choice(scores=scores, bank=bank, notes=notes)


def _bank(asking: Asking, looks: Sequence[Look]) -> tuple[int, tuple[str, ...]]:
    """(how many training images are asked about, a note where they are fewer than there are)."""
    given = 0 if asking.train is None else len(asking.train)
    bank = min(given, BANK, bank_that_fits(max(each.width for each in looks), len(looks)))
    note = f"{bank:,} of {given:,} training images are asked about, a seeded choice"
    return bank, () if bank == given else (note if bank == BANK else f"{note}; more take too much memory",)


def _unlabelled(asking: Asking, train: ImageSet) -> str:
    """Why training images have no labels that every model knows; empty where they have."""
    try:
        for model in asking.models:
            model.truth(train)
    except DataError as error:
        return str(error)
    return ""


def _prints(sets: Mapping[str, ImageSet]) -> dict[str, str]:
    return {name: fingerprint(images) for name, images in sets.items()}
