"""Unknown inputs as a part of a suite: the scores that can be had, of as many training images as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.kept import fingerprint
from rediffuse.evaluation.ood.asking import Asked, Look, look
from rediffuse.evaluation.ood.reference import BANK, NEIGHBOURS
from rediffuse.evaluation.ood.result import OodResult, judge
from rediffuse.evaluation.ood.scores import FITTED_SCORES, SCORES
from rediffuse.evaluation.ood.scoring import Scored, bank_that_fits, left_out, score_sets, share_kept
from rediffuse.evaluation.suite import settings as names
from rediffuse.evaluation.suite.asking import Asking, Part, Progress
from rediffuse.evaluation.suite.cost import Calls
from rediffuse.evaluation.suite.joining import scored


@dataclass(frozen=True, kw_only=True)
class Choice:
    """scores: those that every model can be asked for; bank: training images; notes: what is left out, and why."""

    scores: tuple[str, ...]
    bank: int
    notes: tuple[str, ...]


def unknown(asking: Asking, choice: Choice | None = None) -> Part:
    """choice: of scores and bank; None looks at the classifiers."""
    sets, made = [*asking.near.values(), *asking.far.values()], choose(asking) if choice is None else choice
    asked = Asked(scores=made.scores, bank=max(1, made.bank), seed=asking.settings.seed, leave_out=True, **asking.where)

    def run(keep: Path | None, progress: Progress | None) -> Scored:
        return score_sets(
            asking.models, asking.data, asked=asked, near=asking.near, far=asking.far, train=asking.train, keep=keep, progress=progress
        )

    def join(found: Sequence[Scored]) -> OodResult:
        judged = judge(scored(found, asking.names))
        return replace(judged, notes=(*made.notes, *judged.notes))

    return Part(
        name=names.UNKNOWN,
        models=asking.models,
        images=asking.data,
        calls=Calls(classifier=len(asking.models) * (len(asking.data) + made.bank + sum(map(len, sets)))),
        run=run,
        join=join,
        apart=lambda models: unknown(replace(asking, models=models), made),
        key={"scores": made.scores, "bank": made.bank, "train": None if asking.train is None else fingerprint(asking.train)},
        share=lambda place: share_kept(place, [asking.data, *sets], asking.train, asked),
    )


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
