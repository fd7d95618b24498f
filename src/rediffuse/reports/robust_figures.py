"""Curves of an evaluation as SVG in the page's colours. No name is drawn into them: the page writes legends, which wrap and are escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.evaluation.calibrating import Calibrations
from rediffuse.evaluation.certify.result import Certified
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.entropy import EntropyCurve
from rediffuse.evaluation.few_shot.settings import DA_FUSION, REAL_GUIDANCE
from rediffuse.evaluation.ood.result import OodResult
from rediffuse.reports.figures import COLOURS, FAR, INK, NEAR, as_svg, plain_frame, style

MODELS = (COLOURS[DA_FUSION], COLOURS[REAL_GUIDANCE])
"""Of the first and of the second model."""
MARKERS = ("o", "s")
DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dash-dotted"}
WIDTH, HEIGHT = 4.5, 3.0


def severity_curve(found: CorruptionResult, prefix: str) -> str:
    """Mean accuracy over the common corruptions at each severity; clean at 0. Bars are 95 % intervals over images."""

    def draw(axes: Any) -> None:
        places = [0, *found.severities] if found.clean is not None else list(found.severities)
        for colour, marker, model in zip(MODELS, MARKERS, found.models, strict=False):
            means = [found.mean(model, severities=(severity,)) for severity in found.severities]
            clean = found.clean_accuracy(model)
            values = ([] if clean is None else [100 * clean]) + [100 * mean.value for mean in means]
            axes.plot(places, values, color=colour, marker=marker, markersize=5, linewidth=1.8)
            for severity, mean in zip(found.severities, means, strict=True):
                if mean.low is not None and mean.high is not None:
                    axes.plot([severity, severity], [100 * mean.low, 100 * mean.high], color=colour, linewidth=1.2)
        axes.set_xticks(places, ["clean" if place == 0 else str(place) for place in places])
        axes.set_xlabel("severity")
        _percent(axes, "accuracy, %")

    return _drawn(draw, prefix)


def reliability_diagram(found: Calibrations, prefix: str) -> str:
    """Accuracy against confidence, a point a bin, its area by the images in it; on the diagonal confidence can be believed."""

    def draw(axes: Any) -> None:
        axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=":")
        for colour, marker, model in zip(MODELS, MARKERS, found.models, strict=False):
            diagram = model.diagram()
            points = [
                (100 * said, 100 * true, count)
                for said, true, count in zip(diagram.confidence, diagram.accuracy, diagram.counts, strict=True)
                if said is not None and true is not None
            ]
            x, y, counts = (np.array(column, dtype=float) for column in zip(*points, strict=True))
            axes.plot(x, y, color=colour, linewidth=1.2)
            axes.scatter(x, y, s=8 + 160 * counts / counts.sum(), color=colour, marker=marker, linewidths=0, zorder=3, clip_on=False)
        axes.set_xlim(0, 101)
        axes.set_xlabel("confidence, %")
        _percent(axes, "accuracy, %")

    return _drawn(draw, prefix)


def entropy_figure(found: EntropyCurve, prefix: str) -> str:
    """Mean entropy against the noise time, with the most that there can be; bands are 95 % intervals over images."""

    def draw(axes: Any) -> None:
        for colour, model, classes in zip(MODELS, found.models, found.classes, strict=False):
            mean = found.mean(model)
            axes.plot(found.times, [value.value for value in mean], color=colour, linewidth=1.8)
            low, high = ([value.value if end is None else end for value, end in zip(mean, ends, strict=True)] for ends in _ends(mean))
            axes.fill_between(found.times, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.axhline(math.log(classes), color=INK, linewidth=1, linestyle=":")
        axes.set_xlabel("noise time t")
        axes.set_ylabel("entropy, nats")
        axes.set_ylim(0, 1.06 * max(math.log(classes) for classes in found.classes))
        plain_frame(axes)

    return _drawn(draw, prefix)


def certificate_curve(found: Certified, prefix: str) -> str:
    """Certified accuracy against the radius, a dash a sigma; thin upright lines are the ceilings that the number of draws sets."""

    def draw(axes: Any) -> None:
        for order, sigma in enumerate(found.smoothing.sigmas):
            dash, top = dash_of(order)[0], found.ceiling(sigma)
            for colour, model in zip(MODELS, found.models, strict=False):
                x, y = (np.array(column) for column in zip(*found.find(model, sigma).curve(), strict=True))
                axes.plot(x, 100 * y, color=colour, linewidth=1.8, linestyle=dash)
            axes.axvline(top, color=INK, linewidth=0.8, linestyle=dash, alpha=0.6)
            axes.annotate(
                f"σ {sigma:g}", (top, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                ha="center", va="bottom", fontsize=9, color=INK,
            )  # fmt: skip
        axes.set_xlim(0, 1.04 * max(found.ceiling(sigma) for sigma in found.smoothing.sigmas))
        axes.set_xlabel("L2 radius on [0, 1] images")
        _percent(axes, "certified accuracy, %")

    return _drawn(draw, prefix)


def dash_of(order: int) -> tuple[str, str]:
    """(matplotlib's sign, its name) of the lines of a sigma."""
    return list(DASHES.items())[order % len(DASHES)]


def histogram(found: OodResult, model: str, score: str, prefix: str) -> str:
    """How a score falls: known images filled, near and far sets as lines (means over their sets)."""
    own = next(each for each in found.histograms if (each.model, each.score) == (model, score))
    groups = {row.set: row.group for row in found.rows}

    def draw(axes: Any) -> None:
        edges = np.array(own.edges)
        axes.stairs(_share(own.counts[found.known]), edges, color=INK, fill=True, alpha=0.25)
        for group, colour, dash in (("near", NEAR, "-"), ("far", FAR, "--")):
            parts = [_share(counts) for name, counts in own.counts.items() if groups.get(name) == group]
            if parts:
                axes.stairs(np.mean(parts, axis=0), edges, color=colour, linewidth=1.6, linestyle=dash, baseline=None)
        axes.set_xlabel("score: high looks known")
        axes.set_ylabel("share of images, %")
        axes.set_ylim(bottom=0)
        plain_frame(axes)

    return _drawn(draw, prefix)


def _share(counts: Sequence[int]) -> NDArray[np.float64]:
    values = np.asarray(counts, dtype=np.float64)
    found: NDArray[np.float64] = 100 * values / max(1.0, values.sum())
    return found


def _ends(mean: Sequence[Any]) -> tuple[list[float | None], list[float | None]]:
    return [value.low for value in mean], [value.high for value in mean]


def _percent(axes: Any, label: str) -> None:
    axes.set_ylabel(label)
    axes.set_ylim(0, 101)
    plain_frame(axes)


def _drawn(draw: Callable[[Any], None], prefix: str) -> str:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        draw(figure.add_subplot())
        return as_svg(figure, prefix)
