"""The tables of ensembles, entropies, certificates and attacks as data for a page; differences of two models below them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rediffuse.evaluation.adversarial import Attack
from rediffuse.evaluation.attacking import Attacked
from rediffuse.evaluation.certify.result import RADII, Certified
from rediffuse.evaluation.entropy import EntropyCurve
from rediffuse.evaluation.statistics import Interval, paired_bootstrap, share, verdict
from rediffuse.evaluation.suite.columns import Columns
from rediffuse.evaluation.suite.settings import ENSEMBLE
from rediffuse.reports.evaluation_tables import SIGNS, SWATCHES, Row, cell, gained, number, of, row, table
from rediffuse.reports.words import NARROW, percent


def columns_table(found: Columns) -> dict[str, Any]:
    """Every classifier and what the ensemble makes of it; of two classifiers the ensembles' difference below."""
    corrupted = found.corrupted
    heads = ["clean", "ECE", *(["corrupted"] if corrupted is not None else [])]
    rows = []
    for place, (default, column) in enumerate(found.pairs):
        for name in (default, column):
            cells = [of(found.clean_accuracy(name)), cell(percent(found.clean.find(name).row()["ece"]))]
            cells += [of(corrupted.mean(name))] if corrupted is not None else []
            rows.append(row(name, cells, swatch=SWATCHES[place % 2] if name == default else ""))
        rows.append(_columns_gain("what it changes", found, column, default))
    if len(found.pairs) > 1:
        (first, ours), (second, theirs) = found.pairs[:2]
        rows.append(_columns_gain(f"{found.kind}: {first} over {second}", found, ours, theirs))
    severities = (
        "" if corrupted is None else f"; corrupted: mean over 15 corruptions at severity {', '.join(map(str, corrupted.severities))}"
    )
    return table(f"{found.kind}, {found.images:,} images{severities}", "In %", heads, rows)


def _columns_gain(name: str, found: Columns, ours: str, theirs: str) -> Row:
    """Paired differences of two columns; the word is of the last, where it is corrupted images."""
    gains = [found.clean_gain(ours, theirs)]
    gains += [found.corrupted.difference(ours, theirs)] if found.corrupted is not None else []
    cells = [gained(gains[0]), gained(found.clean.difference(ours, theirs, "ece")), *map(gained, gains[1:])]
    return row(name, cells, gain=True, word=SIGNS[verdict(gains[-1])])


def entropy_table(found: EntropyCurve) -> dict[str, Any]:
    """Mean entropy of the raw image, half-way and where almost nothing is left; of two classifiers the paired difference.

    Of labelled images also how many of the last views are still named rightly.
    """
    places = sorted({0, (len(found.times) - 1) // 2, len(found.times) - 1})
    heads = [f"t = {found.times[place]}" if found.times[place] else "the image itself" for place in places]
    rows = []
    for order, model in enumerate(found.models):
        means = found.mean(model)
        cells = [_in_nats(means[place]) for place in places]
        cells += [] if found.right is None else [of(share(found.right[order, :, -1]))]
        rows.append(row(model, cells, swatch=SWATCHES[order % 2]))
    if len(found.models) > 1:
        first, second = found.models[:2]
        gaps = found.difference(first, second)
        alike = found.classes[0] == found.classes[1]  # else the most that each can say differs, and more nats are not better
        word = SIGNS[verdict(gaps[-1])] if alike else ""
        cells = [number(gaps[place], 2) for place in places]
        cells += [] if found.right is None else [gained(paired_bootstrap(found.right[:1, :, -1], found.right[1:2, :, -1], None))]
        rows.append(row(f"minus {second}", cells, gain=True, word=word))
    heads += [] if found.right is None else [f"named rightly at t = {found.times[-1]}, %"]
    caption = "Mean entropy with 95 % intervals over images; at the last time more is better, as the paper reads it"
    return table(caption, "In nats", heads, rows)


def _in_nats(found: Interval) -> Row:
    return cell(f"{found.value:.2f}", "" if found.low is None or found.high is None else f"{found.low:.2f}–{found.high:.2f}")


def certificate_table(found: Certified) -> dict[str, Any]:
    """Certified accuracy at radii: each sigma, the envelope, and the paired difference of the envelopes."""
    tops = [found.ceiling(sigma) for sigma in found.smoothing.sigmas]
    radii = [radius for radius in RADII if radius <= max(tops)]
    rows = []
    for place, model in enumerate(found.models):
        for sigma, top in zip(found.smoothing.sigmas, tops, strict=True):
            series = found.find(model, sigma)
            cells = [of(share(series.right(radius))) if radius <= top else cell("–") for radius in radii]
            rows.append(row(f"{model}, σ{NARROW}{sigma:g}", cells, swatch=SWATCHES[place % 2]))
        if found.images > 1 and len(tops) > 1:
            envelope = found.envelope(model, radii)
            rows.append(row(f"{model}, σ{NARROW}chosen", [of(share(each)) for each in envelope.right], swatch=SWATCHES[place % 2]))
    if len(found.models) > 1 and found.images > 1:
        first, second = found.models[:2]
        rows.append(row(f"over {second}", [gained(found.gain(first, second, radius)) for radius in radii], gain=True))
    return table("σ chosen: the best on one half of the images, judged on the other", "Certified, %", [f"r {r:g}" for r in radii], rows)


def attack_table(found: Mapping[str, Attacked], pair: tuple[str, str] | None) -> dict[str, Any]:
    """Each victim as it is, then under each attack what is left, and on how many images the attack itself failed.

    Of two models the paired differences below: as they are, and as ensembles where those were attacked. The word is of all attacks that
    agree.
    """
    rows, attacks = [], list(found.values())
    for victim in attacks[0].victims:
        cells = [cell(percent(victim.row()["clean_accuracy"]))]
        for own in (each.find(victim.victim) for each in attacks):
            cells += [of(share(own.attacked)), cell(percent(own.row()["without_gradient"]))]
        rows.append(row(victim.victim, cells))
    known = {victim.victim for victim in attacks[0].victims}
    for kind in ("", ENSEMBLE) if pair is not None else ():
        ours, theirs = (f"{model}, {kind}" if kind else model for model in pair or ())
        if {ours, theirs} <= known:
            gains = [each.difference(ours, theirs) for each in attacks]
            cells = [cell(""), *(each for gain in gains for each in (gained(gain), cell("")))]
            name = " over ".join(pair or ())
            rows.append(row(f"{kind}: {name}" if kind else name, cells, gain=True, word=_common(gains)))
    heads = [head for each in attacks for head in (f"after {radius(each.attack)}", "without gradient")]
    return table(f"{attacks[0].images:,} images", "In %", ["before", *heads], rows)


def _common(gains: Sequence[Interval]) -> str:
    """The verdict in words; none where attacks differ in it."""
    said = {verdict(gain) for gain in gains}
    return SIGNS[said.pop()] if len(said) == 1 else ""


def radius(attack: Attack) -> str:
    """Norm and radius, as they are usually written."""
    return f"L2 {attack.epsilon:.3g}" if attack.norm == "l2" else f"L∞ {255 * attack.epsilon:.3g}/255"


def nats(classes: int) -> str:
    return f"log {classes} = {math.log(classes):.2f}"
