"""The table of a level as data for a page: accuracies, paired differences below them, what is missing said in words."""

from __future__ import annotations

from typing import Any

from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.settings import ARMS, PIXELS, REAL_GUIDANCE, STANDARD
from rediffuse.evaluation.statistics import Interval, verdict
from rediffuse.reports.words import accuracy_range, arm_name, baseline_name, level_name, percent, points, points_range

SIGNS = {"helps": "▲ helps", "no evidence": "● no evidence", "hurts": "▼ hurts"}


def level_table(comparison: Comparison, level: str) -> dict[str, Any]:
    """Caption, columns and rows: every arm's accuracy, and for each that follows a baseline its gain over it."""
    columns: list[int | None] = [*sorted(comparison.shots)]
    if len(columns) > 1:
        columns.append(None)
    rows: list[dict[str, Any]] = []
    for arm in (arm for arm in ARMS if arm in comparison.arms):
        own = PIXELS if arm == PIXELS else level
        cells = [_accuracy(comparison, own, arm, shots) for shots in columns]
        rows.append({"name": arm_name(arm), "arm": arm, "gain": False, "verdict": "", "cells": cells})
        for baseline in (STANDARD, REAL_GUIDANCE):
            if baseline in comparison.arms and arm != PIXELS and ARMS.index(arm) > ARMS.index(baseline):
                rows.append(_gain_row(comparison, level, arm, baseline, columns))
    return {
        "caption": f"{level}: {level_name(comparison, level)}",
        "columns": [{"name": heading(shots), "mean": shots is None} for shots in columns],
        "rows": rows,
        "verdicts": any(row["gain"] for row in rows),
    }


def heading(shots: int | None) -> str:
    if shots is None:
        return "mean"
    return f"{shots} shot{'' if shots == 1 else 's'}"


def _gain_row(comparison: Comparison, level: str, arm: str, baseline: str, columns: list[int | None]) -> dict[str, Any]:
    gains = [comparison.gain(level, arm, baseline, shots) for shots in columns]
    whole = comparison.gain(level, arm, baseline)
    return {
        "name": f"over {baseline_name(baseline)}",
        "arm": arm,
        "gain": True,
        "verdict": "" if whole is None else SIGNS[verdict(whole)],
        "cells": [_cell(gain, shots, comparison, signed=True) for gain, shots in zip(gains, columns, strict=True)],
    }


def _accuracy(comparison: Comparison, level: str, arm: str, shots: int | None) -> dict[str, Any]:
    return _cell(comparison.accuracy(level, arm, shots), shots, comparison, signed=False)


def _cell(found: Interval | None, shots: int | None, comparison: Comparison, *, signed: bool) -> dict[str, Any]:
    if found is None:
        return {"value": "", "range": "", "lacks": "", "mean": shots is None}
    asked = len(comparison.seeds)
    return {
        "value": points(found.value) if signed else percent(found.value),
        "range": points_range(found) if signed else accuracy_range(found),
        "lacks": f"{found.runs} of {asked} seeds" if found.runs < asked else "",
        "mean": shots is None,
    }
