"""Curves as SVG that takes its colours and letters from the page, so that one drawing serves light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.settings import ARMS, DA_FUSION, PIXELS, REAL_GUIDANCE, STANDARD
from rediffuse.evaluation.statistics import Interval
from rediffuse.reports.words import arm_name

# Stand-ins that matplotlib draws with; the page's own colours take their place.
INK, FAINT, NEAR, FAR = "#010101", "#020202", "#070707", "#080808"
COLOURS = {PIXELS: "#030303", STANDARD: "#040404", REAL_GUIDANCE: "#050505", DA_FUSION: "#060606"}
_VARIABLES = {INK: "--ink", FAINT: "--rule", NEAR: "--warn", FAR: "--bad"} | {colour: f"--{arm}" for arm, colour in COLOURS.items()}
_MARKERS = {PIXELS: "D", STANDARD: "s", REAL_GUIDANCE: "^", DA_FUSION: "o"}
WIDTH, HEIGHT = 5.2, 3.5
"""Inches; the page scales the drawing to its column."""


@dataclass(frozen=True)
class Point:
    """One point of a curve; whole: all its seeds are there."""

    shots: int
    value: Interval
    whole: bool


def accuracy_curves(comparison: Comparison, level: str) -> str | None:
    """Accuracy over shots of every arm at a level, as an inline SVG; None where no cell is there.

    Bars are 95 % intervals; a hollow mark lacks seeds; a missing mark has none.
    """
    curves = {arm: points for arm in ARMS if arm in comparison.arms and (points := _points(comparison, level, arm))}
    if not set(curves) - {PIXELS}:
        return None
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        shots = sorted(comparison.shots)
        for place, (arm, points) in enumerate(curves.items()):
            _curve(axes, arm, points, 2 ** (0.05 * (place - (len(curves) - 1) / 2)), dotted=arm == PIXELS)
        _frame(axes, shots)
        _label_ends(axes, {arm: points[-1].value.value for arm, points in curves.items()}, shots[-1])
        return as_svg(figure, f"chart-{comparison.levels.index(level)}-")


def as_svg(figure: Any, prefix: str) -> str:
    """A matplotlib figure as SVG in the page's colours; drawn under `style`. prefix: of its ids, another one for each figure of a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return themed(buffer.getvalue(), prefix)


def themed(svg: str, prefix: str) -> str:
    """A matplotlib SVG without its preamble, coloured by the page's variables and lettered in its type; ids get a prefix of their own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"(font(?:-family)?: (?:[^\"';]*px )?)'[^;\"]*", r"\1var(--sans)", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 class="chart" aria-hidden="true"', svg, count=1)
    return re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


def _points(comparison: Comparison, level: str, arm: str) -> list[Point]:
    own = PIXELS if arm == PIXELS else level
    found = []
    for shots in sorted(comparison.shots):
        value = comparison.accuracy(own, arm, shots)
        if value is not None:
            found.append(Point(shots, value, value.runs == len(comparison.seeds)))
    return found


def _curve(axes: Any, arm: str, points: Sequence[Point], shift: float, *, dotted: bool) -> None:
    colour, marker = COLOURS[arm], _MARKERS[arm]
    x = [point.shots * shift for point in points]
    y = [100 * point.value.value for point in points]
    axes.plot(x, y, color=colour, linewidth=1.8, linestyle=":" if dotted else "-", zorder=2)
    for place, point in zip(x, points, strict=True):
        if point.value.low is not None and point.value.high is not None:
            axes.plot([place, place], [100 * point.value.low, 100 * point.value.high], color=colour, linewidth=1.2, zorder=3)
        axes.plot(
            [place], [100 * point.value.value], marker=marker, markersize=5.5, color=colour, markeredgewidth=1.4, zorder=4,
            markerfacecolor=colour if point.whole else "none",
        )  # fmt: skip


def _frame(axes: Any, shots: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(count) for count in shots])
    axes.minorticks_off()
    axes.set_xlim(shots[0] / 1.2, shots[-1] * 1.2)
    axes.set_xlabel("photos of each class")
    axes.set_ylabel("accuracy, %")
    plain_frame(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low), min(100.0, high) if high <= 101 else 100.0)


def plain_frame(axes: Any) -> None:
    """Faint lines across, no box."""
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0)


def _label_ends(axes: Any, ends: Mapping[str, float], last: int) -> None:
    """Names at the right ends of the curves, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.085
    for (arm, _), y in zip(
        sorted(ends.items(), key=lambda end: end[1]), spread(sorted(100 * end for end in ends.values()), gap), strict=True
    ):
        axes.annotate(
            arm_name(arm).replace(" augmentation", ""), (last * 1.2, y), xytext=(4, 0), textcoords="offset points", color=COLOURS[arm],
            va="center", annotation_clip=False, fontweight="bold",
        )  # fmt: skip


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved as little as it takes to stand at least `gap` apart, groups around their own middle."""
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _middle(groups[-1]) - _middle(groups[-2]) < gap * (len(groups[-1]) + len(groups[-2])) / 2:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_middle(group) + gap * (rank - (len(group) - 1) / 2) for group in groups for rank in range(len(group))]


def _middle(group: Sequence[float]) -> float:
    return math.fsum(group) / len(group)


@contextmanager
def style() -> Iterator[None]:
    """matplotlib with settings of its own, restored afterwards."""
    import matplotlib

    colours: dict[Any, Any] = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    letters: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "rediffuse", "font.family": "sans-serif", "font.size": 10}
    with matplotlib.rc_context({**colours, **letters}):
        yield
