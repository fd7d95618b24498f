"""What of a comparison's folder is drawn: what was asked for, and all that earlier calls finished beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rediffuse.evaluation.few_shot.cells import CellStore, Stage
from rediffuse.evaluation.few_shot.settings import ARMS, GENERATED, REAL_GUIDANCE, Cell, CompareSettings
from rediffuse.progress import counted

GROWING = ("seeds", "shots", "arms", "levels")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Settings that are drawn.

    Attributes:
        settings: with what is drawn beside what was asked for; weights' hashes stand for the places of levels that were not asked for.
        notes: what is drawn unasked, and what lies there and is not drawn, in sentences.
    """

    settings: CompareSettings
    notes: tuple[str, ...]


def choose_drawn(asked: CompareSettings, there: Mapping[str, Any] | None, store: CellStore, *, makes: bool) -> Drawn:
    """Add the seeds, shots, arms and levels of earlier calls, so far as no cell of them is missing: a page that lost some for having been
    asked for fewer could say the opposite of the one before.

    Args:
        there: settings that the folder holds, as JSON.
        makes: a model was given, of which the page says what is to be known of it; without one no arm that makes copies is added.
    """
    whole = _united(asked, there or {})
    done = {cell for cell in whole.cells() if store.read(cell) is not None}
    drawn = _grown(asked, whole, done, without=() if makes else GENERATED)
    notes = [f"The folder held more of this comparison, which is drawn too: {told}."] if (told := _more(asked, drawn)) else []
    if left := len(done - {*drawn.cells()}):
        fix = f"ask for all at once to see them: {_more(drawn, whole)}"
        notes.append(f"{counted(left, 'finished cell')} of the folder {'is' if left == 1 else 'are'} not drawn, for want of others; {fix}.")
    return Drawn(settings=drawn, notes=tuple(notes))


def stages_of(stages: Sequence[Stage], drawn: CompareSettings) -> tuple[Stage, ...]:
    """Those that what is drawn was made by. Copies of Real Guidance are made for the most shots and serve fewer."""
    own = [stage for stage in stages if stage.seed in drawn.seeds and stage.arm in drawn.arms]
    most, found = max(drawn.shots), [stage for stage in own if stage.shots in drawn.shots]
    for seed in drawn.seeds:
        shared = sorted((stage for stage in own if (stage.arm, stage.seed) == (REAL_GUIDANCE, seed)), key=lambda stage: stage.shots)
        if all(stage.shots < most for stage in shared if stage in found):
            found += [stage for stage in shared if stage.shots > most][:1]
    return tuple(stage for stage in stages if stage in found)


def _united(asked: CompareSettings, there: Mapping[str, Any]) -> CompareSettings:
    """All that was ever asked for in a folder, in order."""
    own, stored = dict(asked.levels), [(str(name), str(weights)) for name, weights in there.get("levels") or ()]
    levels = [(name, own.get(name, weights)) for name, weights in stored]
    arms = {*asked.arms, *(there.get("arms") or ())}
    return replace(
        asked,
        seeds=tuple(sorted({*asked.seeds, *(there.get("seeds") or ())})),
        shots=tuple(sorted({*asked.shots, *(there.get("shots") or ())})),
        arms=tuple(arm for arm in ARMS if arm in arms),
        levels=(*levels, *(level for level in asked.levels if level not in levels)),
    )


def _grown(asked: CompareSettings, whole: CompareSettings, done: Collection[Cell], without: Sequence[str]) -> CompareSettings:
    """asked with every value of `whole` that brings finished cells and no missing one; seeds first, since intervals are over them."""
    drawn, before = asked, None
    while drawn != before:
        before = drawn
        for name in GROWING:
            for value in getattr(whole, name):
                values = getattr(drawn, name)
                if value in values or value in without:
                    continue
                wider: dict[str, Any] = {name: tuple(each for each in getattr(whole, name) if each in (*values, value))}
                more = replace(drawn, **wider)
                new = {*more.cells()} - {*drawn.cells()}
                drawn = more if new and new <= {*done} else drawn
    return drawn


def _more(few: CompareSettings, many: CompareSettings) -> str:
    """`seeds 0, 1, 2, 3; shots 1, 2`: all values of `many` where it has more."""
    told = []
    for name in GROWING:
        values = getattr(many, name)
        if len(values) > len(getattr(few, name)):
            told.append(f"{name} {', '.join(str(value[0] if isinstance(value, tuple) else value) for value in values)}")
    return "; ".join(told)
