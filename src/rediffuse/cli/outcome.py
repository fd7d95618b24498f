"""What a comparison found, for the terminal, in the words of its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rediffuse.cli import terminal

if TYPE_CHECKING:
    from rediffuse.evaluation.few_shot.comparison import Comparison
    from rediffuse.evaluation.statistics import Interval


def show(found: Comparison, *, verdicts: bool = True) -> None:
    """A table for each level, and below them a verdict in words for each arm that makes copies."""
    from rediffuse.evaluation.few_shot.settings import GENERATED, STANDARD
    from rediffuse.reports.words import level_name, sentence

    for level in found.levels:
        columns, rows = level_rows(found, level)
        known = any("±" in cell for row in rows for cell in row)
        terminal.say(f"\nAccuracy in % ({origin(found, level)}{'; ± is half of the 95 % interval' if known else ''})", style="bold")
        terminal.table(("", *columns), rows)
    for level in found.levels if verdicts and STANDARD in found.arms else ():
        for arm in (arm for arm in GENERATED if arm in found.arms):
            said, gain = found.verdict(level, arm), found.gain(level, arm)
            if said and gain:
                terminal.say(f"{sentence(said, arm, level_name(found, level), STANDARD)} {gained(gain)}.")
    missing = len(found.missing())
    if missing:
        terminal.say(f"{missing} of {len(found.asked())} cells are missing; the same command tries them again.", style="yellow")
    for line in found.limits:
        terminal.say(line.replace("**", ""), style="dim")


def level_rows(found: Comparison, level: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """(headings, rows) of a level: an arm a row, a number of shots a column, then their mean and the gain over the standard."""
    from rediffuse.evaluation.few_shot.settings import ARMS, GENERATED, PIXELS, STANDARD
    from rediffuse.reports.words import arm_name

    shots: list[int | None] = [*found.shots, None] if len(found.shots) > 1 else [*found.shots]
    headings = ["mean" if number is None else f"{number} shot{'' if number == 1 else 's'}" for number in shots]
    compared = STANDARD in found.arms and any(arm in GENERATED for arm in found.arms)
    rows = []
    for arm in (arm for arm in ARMS if arm in found.arms):
        known = [found.accuracy(PIXELS if arm == PIXELS else level, arm, number) for number in shots]
        cells = [accuracy(value) + lacks(value, found) for value in known]
        gain = found.gain(level, arm) if compared and arm in GENERATED else None
        rows.append((arm_name(arm), *cells, *([difference(gain) + lacks(gain, found) if gain else ""] if compared else [])))
    return [*headings, *(["over standard"] if compared else [])], rows


def origin(found: Comparison, level: str) -> str:
    """What a classifier knew at the start, in words."""
    return "classifiers from random weights" if found.from_scratch(level) else f"linear classifiers on the features of {level}"


def accuracy(value: Interval | None) -> str:
    """`41.2 ±2.1`: per cent and half of the interval's width; `missing` where nothing is known."""
    from rediffuse.reports.words import percent

    if value is None:
        return "missing"
    known = value.low is not None and value.high is not None
    return percent(value.value) + (f" ±{50 * (value.high - value.low):.1f}" if known else "")  # type: ignore[operator]  # known


def lacks(value: Interval | None, found: Comparison) -> str:
    """` (2 of 4 seeds)` behind a figure that some seeds are missing of, as on the page; empty behind any other."""
    asked = len(found.seeds)
    return f" ({value.runs} of {asked} seeds)" if value is not None and value.runs < asked else ""


def difference(value: Interval) -> str:
    """`+3.1 (+1.0 to +5.2)`: percentage points."""
    from rediffuse.reports.words import points, points_range

    return points(value.value) + (f" ({points_range(value)})" if value.low is not None else "")


def gained(value: Interval) -> str:
    """`+3.1 points (+1.0 to +5.2; 95 % interval over 4 seeds)`."""
    from rediffuse.reports.words import basis, points, points_range

    spread = f"{points_range(value)}; " if value.low is not None else ""
    return f"{points(value.value)} points ({spread}{basis(value)})"
