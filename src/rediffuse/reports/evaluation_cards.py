"""What an evaluation comes to, a card a question: the first model's figure and, of two, what the paired interval says."""

from __future__ import annotations

from typing import Any

from rediffuse.evaluation.statistics import FEW, Interval, share
from rediffuse.evaluation.suite.columns import Columns
from rediffuse.evaluation.suite.result import Evaluation
from rediffuse.reports.evaluation_tables import better, hardest
from rediffuse.reports.words import accuracy_range, basis, percent, points, points_range, with_basis

WORDS = {"helps": "▲ Better", "no evidence": "● No evidence", "hurts": "▼ Worse"}
RADII = (0.5, 0.25)
"""Of the card on certificates: the first that a ceiling lets be."""
Card = dict[str, Any]
"""With `of` where the figure is one of a single model, of two that are compared."""


def cards(evaluation: Evaluation) -> list[Card]:
    """One for each part that is there."""
    made = (_accuracy(evaluation), _corruptions(evaluation), _calibration(evaluation), *_unknown(evaluation), _certificates(evaluation))
    made += (_columns(evaluation.ensemble), _columns(evaluation.adapted))
    return [card for card in made if card is not None]


def _card(
    kicker: str,
    evaluation: Evaluation,
    ours: Interval,
    theirs: Interval | None,
    gain: Interval | None,
    sentence: str,
    *,
    lower: bool = False,
) -> Card:
    """Of one model its figure; of two the difference in points, the verdict, and both figures."""
    if gain is None or theirs is None:
        range_ = f"{accuracy_range(ours)} %; {basis(ours)}." if ours.low is not None else with_basis("", ours) if ours.basis == FEW else ""
        return {"kicker": kicker, "style": "", "word": "", "big": percent(ours.value), "unit": "%", "sentence": sentence, "range": range_}
    said = better(gain, lower=lower)
    first, second = evaluation.models[:2]
    both = f"{first} {percent(ours.value)} %, {second} {percent(theirs.value)} %. {sentence}"
    return {
        "kicker": kicker,
        "style": said.replace(" ", "-"),
        "word": WORDS[said],
        "big": points(gain.value),
        "unit": "points",
        "sentence": both,
        "range": with_basis(points_range(gain), gain),
    }


def _accuracy(evaluation: Evaluation) -> Card | None:
    found = evaluation.calibration
    if found is None:
        return None
    own = [share(each.as_is.right) for each in found.models]
    gain = found.difference(*evaluation.pair, "accuracy") if evaluation.pair else None
    return _card("Accuracy", evaluation, own[0], own[1] if gain else None, gain, f"Named rightly of {found.images:,} images.")


def _corruptions(evaluation: Evaluation) -> Card | None:
    found = evaluation.corruptions
    if found is None:
        return None
    most = (max(found.severities),)
    own = [found.mean(model) for model in found.models]
    gain = found.difference(*evaluation.pair) if evaluation.pair else None
    worst = " against ".join(f"{percent(found.mean(model, severities=most).value)} %" for model in found.models)
    said = f"Mean over 15 corruptions and {len(found.severities)} severities; at severity {most[0]}: {worst}; "
    said += f"{hardest(found, found.models[0])}."
    return _card("Under corruption", evaluation, own[0], own[1] if gain else None, gain, said)


def _calibration(evaluation: Evaluation) -> Card | None:
    found = evaluation.calibration
    if found is None:
        return None
    own = [Interval(value=each.as_is.scores(each.bins)["ece"]) for each in found.models]
    chance = " and ".join(f"{percent(each.chance[1])} %" for each in found.models)
    gain = found.difference(*evaluation.pair, "ece") if evaluation.pair else None
    return _card(
        "Calibration error", evaluation, own[0], own[1] if gain else None, gain,
        f"How far confidence is from accuracy (ECE); less is better. On {found.images:,} images chance alone makes up to {chance}.",
        lower=True,
    )  # fmt: skip


def _unknown(evaluation: Evaluation) -> list[Card]:
    found, made = evaluation.unknown, []
    for group in ("near", "far") if found is not None else ():
        if found is None:
            break
        score = next((name for name in ("headline", "energy", *found.scores) if found.mean(found.models[0], group, name)), None)
        if score is None:
            continue
        means = [found.mean(model, group, score) for model in found.models]
        own = [mean.auroc for mean in means if mean is not None]
        gain = found.gain(*evaluation.pair, group, score) if evaluation.pair else None
        what = "mean of MSP, energy and KNN" if score == "headline" else score.replace("_", "-")
        said = f"AUROC, {what}; chance is 50 %."
        made.append(_card(f"Unknown inputs, {group}", evaluation, own[0], own[1] if gain else None, gain, said))
    return made


def _certificates(evaluation: Evaluation) -> Card | None:
    found = evaluation.certified
    if found is None:
        return None
    sigma, radius = next(
        (pair for pair in ((sigma, radius) for radius in RADII for sigma in found.smoothing.sigmas) if found.ceiling(pair[0]) >= pair[1]),
        (found.smoothing.sigmas[-1], 0.0),
    )
    own = [share(found.find(model, sigma).right(radius)) for model in found.models]
    gain = found.gain(*evaluation.pair, radius, sigma) if evaluation.pair else None
    said = f"Certified within L2 radius {radius:g} at σ {sigma:g}; {found.images:,} images, {found.smoothing.draws:,} draws each."
    return _card("Certificates", evaluation, own[0], own[1] if gain else None, gain, said)


def _columns(found: Columns | None) -> Card | None:
    """What an ensemble changes for the first model, under corruption where that was asked."""
    if found is None:
        return None
    default, column = found.pairs[0]
    corrupted = found.corrupted
    gain = found.clean_gain(column, default) if corrupted is None else corrupted.difference(column, default)
    said, clean = better(gain), points(found.clean_gain(column, default).value)
    where = "on clean images" if corrupted is None else f"under corruption (clean images: {clean} points)"
    return {
        "kicker": found.kind,
        "of": default,
        "style": said.replace(" ", "-"),
        "word": WORDS[said],
        "big": points(gain.value),
        "unit": "points",
        "sentence": f"What it changes for {default} {where}; {found.images:,} images.",
        "range": with_basis(points_range(gain), gain),
    }
