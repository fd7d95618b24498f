"""The curves of an evaluation: what stands where on their axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.stats import norm
from tests.reports.test_evaluation import corrupted

from rediffuse.evaluation.calibrating import Calibration, Calibrations
from rediffuse.evaluation.calibration import Judgements
from rediffuse.evaluation.certify.result import Certified, Series
from rediffuse.evaluation.certify.rows import Certificate
from rediffuse.evaluation.certify.smoothing import Smoothing
from rediffuse.evaluation.entropy import EntropyCurve
from rediffuse.evaluation.ood.result import Histogram, OodResult, OodRow
from rediffuse.evaluation.statistics import Interval
from rediffuse.reports import robust_figures as figures
from rediffuse.reports.figures import FAR, INK, NEAR

Axes = Callable[..., Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Axes:
    """drawn(figure, its arguments): the axes that it draws."""

    def axes_of(figure: Callable[..., str], *given: Any) -> Any:
        kept: list[Callable[[Any], None]] = []
        monkeypatch.setattr(figures, "_drawn", lambda draw, _: kept.append(draw) or "")
        figure(*given, "x-")
        axes = Figure().add_subplot()
        kept[0](axes)
        return axes

    return axes_of


def points(line: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_severities_stand_at_their_accuracy(drawn: Axes) -> None:
    axes = drawn(figures.severity_curve, corrupted({"a": 0.2, "b": 0.9}))
    curves = [line for line in axes.lines if len(line.get_xdata()) == 6]
    assert [(line.get_color(), set(line.get_ydata())) for line in curves] == [(figures.MODELS[0], {20.0}), (figures.MODELS[1], {90.0})]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["clean", "1", "2", "3", "4", "5"]


def certified() -> Certified:
    """Two models at two sigmas; of four images the first model is certain of one, two, three, four quarters of the ceiling."""
    plan = Smoothing(sigmas=(0.25, 0.5), draws=1000, alpha=0.001)
    series = []
    for sigma in plan.sigmas:
        top = sigma * float(norm.ppf(plan.alpha ** (1 / plan.draws)))
        for model, labels in (("a", (1, 1, 1, 1)), ("b", (0, 0, 0, 1))):
            rows = tuple(
                Certificate(index=place, label=label, predict=1, radius=top * (place + 1) / 4 + 1e-9) for place, label in enumerate(labels)
            )
            series.append(Series(model=model, sigma=sigma, ceiling=top, rows=rows))
    return Certified(smoothing=plan, smoother="plain", images=4, models=("a", "b"), series=tuple(series))


def test_certificates_stand_under_their_ceilings(drawn: Axes) -> None:
    axes = drawn(figures.certificate_curve, certified())
    tops = [sigma * float(norm.ppf(0.001 ** (1 / 1000))) for sigma in (0.25, 0.5)]
    upright = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert [line.get_xdata()[0] for line in upright] == pytest.approx(tops)
    assert [(line.get_xdata()[0] == line.get_xdata()[1], list(line.get_ydata())) for line in upright] == [(True, [0, 1])] * 2
    assert [(line.get_linestyle(), line.get_color()) for line in upright] == [("-", INK), ("--", INK)]
    assert [text.get_text() for text in axes.texts] == ["σ 0.25", "σ 0.5"]
    assert [text.xy[0] for text in axes.texts] == pytest.approx(tops)
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [(line.get_color(), line.get_linestyle()) for line in curves] == [
        (colour, dash) for dash in ("-", "--") for colour in figures.MODELS
    ]
    for line, top, values in zip(curves, np.repeat(tops, 2), ((100, 75, 50, 25), (25, 25, 25, 25)) * 2, strict=True):
        x, y = np.array(points(line)).T
        assert (x[0], x[-1]) == (0, pytest.approx(top))
        assert [y[np.abs(x - top * (place + 0.5) / 4).argmin()] for place in range(4)] == list(values)
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] >= max(tops)
    assert axes.get_ylim()[0] == 0


def judgements(*bins: tuple[float, int, int]) -> Judgements:
    """(confidence, images, of which right) of each bin."""
    said = np.concatenate([np.full(images, confidence) for confidence, images, _ in bins])
    right = np.concatenate([np.arange(images) < true for _, images, true in bins])
    return Judgements(confidence=said, right=right, brier=np.zeros(len(said)), surprise=np.zeros(len(said)))


def test_reliability_stands_at_confidence_and_accuracy(drawn: Axes) -> None:
    models = (
        Calibration(model="a", as_is=judgements((0.5, 10, 2), (0.9, 30, 24))),
        Calibration(model="b", as_is=judgements((0.7, 40, 40))),
    )
    axes = drawn(figures.reliability_diagram, Calibrations(models=models, images=40))
    diagonal, first, second = axes.lines
    assert (points(diagonal), diagonal.get_linestyle()) == ([(0, 0), (100, 100)], ":")
    assert points(first) == [pytest.approx((50, 20)), pytest.approx((90, 80))]
    assert points(second) == [pytest.approx((70, 100))]
    assert (first.get_color(), second.get_color()) == figures.MODELS
    marks = axes.collections
    assert [len(mark.get_offsets()) for mark in marks] == [2, 1]
    assert np.asarray(marks[0].get_offsets()) == pytest.approx(np.array([[50, 20], [90, 80]]))
    few, many = marks[0].get_sizes()
    assert few < many < marks[1].get_sizes()[0]  # a quarter, three quarters and all of the images
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("confidence, %", "accuracy, %")


def test_entropy_stands_under_the_most_there_can_be(drawn: Axes) -> None:
    rise = np.linspace(0.1, 1, 3, dtype=np.float32)
    spread = np.linspace(-0.05, 0.05, 12)[:, None]
    entropies = np.stack([rise + spread, 0.5 * rise + spread]).astype(np.float32)
    curve = EntropyCurve(times=(0, 500, 999), sigma=(0, 1, 2), models=("a", "b"), classes=(3, 5), entropies=entropies)
    axes = drawn(figures.entropy_figure, curve)
    first, most, second, most_of_second = axes.lines
    for line, share, colour in zip((first, second), (1, 0.5), figures.MODELS, strict=True):
        assert (list(line.get_xdata()), line.get_color()) == ([0, 500, 999], colour)
        assert line.get_ydata() == pytest.approx(share * rise, abs=1e-6)
    for line, classes in ((most, 3), (most_of_second, 5)):
        assert (list(line.get_ydata()), line.get_linestyle()) == ([math.log(classes)] * 2, ":")
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > math.log(5)
    for band, model in zip(axes.collections, ("a", "b"), strict=True):
        corners = {(round(float(x)), round(float(y), 4)) for x, y in band.get_paths()[0].vertices}
        for time, found in zip(curve.times, curve.mean(model), strict=True):
            assert found.low is not None
            assert found.high is not None
            assert {(time, round(found.low, 4)), (time, round(found.high, 4))} <= corners


def unknown() -> OodResult:
    counts = {"own": (1, 1, 2), "like": (3, 1, 0), "alike": (1, 1, 2), "other": (10, 0, 0)}
    groups = {"like": "near", "alike": "near", "other": "far"}
    rows = tuple(
        OodRow(model="a", set=name, group=group, images=sum(counts[name]), score="energy", auroc=Interval(value=0.5), aupr_known=0.5,
               aupr_unknown=0.5, fpr95=0.5)
        for name, group in groups.items()
    )  # type: ignore[arg-type]  # fmt: skip
    histogram = Histogram(model="a", score="energy", edges=(-2.0, -1.0, 0.0, 1.0), counts=counts)
    other = Histogram(model="a", score="msp", edges=(0.0, 1.0), counts=dict.fromkeys(counts, (1,)))
    return OodResult(
        models=("a",), scores=("energy",), known="own", known_images=4, rows=rows, means=(), gains=(), histograms=(other, histogram)
    )


def test_histograms_are_shares_of_known_near_and_far_images(drawn: Axes) -> None:
    axes = drawn(figures.histogram, unknown(), "a", "energy")
    known, near, far = axes.patches
    for patch, shares in ((known, (25, 25, 50)), (near, (50, 25, 25)), (far, (100, 0, 0))):
        assert list(patch.get_data().edges) == [-2, -1, 0, 1]
        assert list(patch.get_data().values) == pytest.approx(shares)
    assert known.get_fill()
    assert [patch.get_fill() for patch in (near, far)] == [False, False]
    assert to_hex(known.get_facecolor()) == INK
    assert [(to_hex(patch.get_edgecolor()), patch.get_linestyle()) for patch in (near, far)] == [(NEAR, "-"), (FAR, "--")]
    assert axes.get_ylim()[0] == 0
