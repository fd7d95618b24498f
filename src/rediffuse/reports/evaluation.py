"""An evaluation as one self-contained page: what the classifier is worth, beside a second one where there are two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rediffuse.evaluation.suite.result import Evaluation
from rediffuse.progress import counted, duration
from rediffuse.reports import evaluation_tables as tables
from rediffuse.reports import robust_figures as figures
from rediffuse.reports import robust_tables as robust
from rediffuse.reports.evaluation_cards import cards
from rediffuse.reports.rendering import PAGE, flatten, render
from rediffuse.reports.words import percent
from rediffuse.writing import write_text

FITTED = {"react": "ReAct", "knn": "KNN", "mahalanobis": "Mahalanobis"}
"""Scores that look at training images, as the page calls them."""

Section = dict[str, Any]


def write_page(evaluation: Evaluation, folder: str | Path) -> Path:
    """Draw an evaluation into `folder/report.html`, whole or not at all; returns the file."""
    path = Path(folder) / PAGE
    write_text(path, render_page(evaluation))
    return path


def render_page(evaluation: Evaluation) -> str:
    """The page as text."""
    made = evaluation.provenance
    both = " and ".join(evaluation.models)
    title = f"{both} on {evaluation.name}" if evaluation.pair is None else f"{evaluation.models[0]} against {evaluation.models[1]}"
    return render(
        "evaluation.html.j2",
        {
            "title": title,
            "subtitle": f"{evaluation.name}: {evaluation.images:,} images of {_classes(evaluation)} at {evaluation.side} pixels; "
            f"suite {evaluation.suite}.",
            "cards": cards(evaluation),
            "reading": _reading(evaluation),
            "failures": [(part.part, part.reason) for part in evaluation.failures()],
            "missing": [(part.part, part.reason) for part in evaluation.skipped if not part.failed],
            "sections": [section for build in _SECTIONS if (section := build(evaluation)) is not None],
            "facts": [(name, duration(seconds)) for name, seconds in evaluation.seconds.items() if seconds]
            + [("in all", duration(sum(evaluation.seconds.values())))],
            "limits": limits(evaluation),
            "command": made.command,
            "details": _details(evaluation),
            "colophon": f"Made on {made.date} by rediffuse {made.versions.get('rediffuse', '')}.",
        },
    )


def _classes(evaluation: Evaluation) -> str:
    """How many classes the images show; where the first classifier knows more, of how many."""
    known = len(evaluation.classes)
    shown = known if evaluation.accuracy is None else evaluation.accuracy[evaluation.models[0]].shown
    of = counted(known, "class", "classes")
    return of if shown == known else f"{shown:,} of the {of} that {evaluation.models[0]} knows"


def _reading(evaluation: Evaluation) -> str:
    """How the cards of two models are meant."""
    if evaluation.pair is None:
        return ""
    first, second = evaluation.pair
    return (
        f"Figures are {first} minus {second}, on the same images; better or worse stands where the interval of the difference leaves out "
        "zero. Cards on ensembles say what an ensemble changes."
    )


def _section(
    title: str, intro: str, *, charts: Sequence[Section] = (), given: Sequence[Section] = (), folded: Sequence[Section] = ()
) -> Section:
    """charts: {title, label, svg, legend}; given: tables in the open; folded: tables under a line that opens them."""
    return {"title": title, "intro": intro, "charts": list(charts), "tables": list(given), "folded": list(folded)}


def _chart(title: str, label: str, svg: str, legend: Sequence[tuple[str, str]], note: str = "") -> Section:
    from markupsafe import Markup

    return {"title": title, "label": label, "svg": Markup(svg), "legend": list(legend), "note": note}  # drawn here, without names


def _legend(models: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(tables.SWATCHES, models, strict=False))


def accuracy(evaluation: Evaluation) -> Section | None:
    if evaluation.accuracy is None:
        return None
    found = dict(evaluation.accuracy)
    first = found[evaluation.models[0]]
    fewer = f" The mean over classes is over the {first.shown:,} that have images here." if first.shown < len(first.classes) else ""
    return _section(
        "Accuracy",
        f"How often the class is named rightly.{fewer}",
        given=[tables.accuracy_table(found, evaluation.calibration)],
        folded=[tables.confusion(model, value) for model, value in found.items()],
    )


def corruptions(evaluation: Evaluation) -> Section | None:
    found = evaluation.corruptions
    if found is None:
        return None
    chart = _chart(
        "Accuracy by severity",
        "Mean accuracy over fifteen corruptions at each severity; the figures are in the tables",
        figures.severity_curve(found, "severity-"),
        _legend(found.models),
    )
    gains = [] if evaluation.pair is None else [tables.corruption_gains(found, *evaluation.pair)]
    star = "" if all(found.comparable) else " A star marks what may not stand beside published figures."
    return _section(
        "Corruptions",
        f"Fifteen corruptions at {len(found.severities)} severities, each made anew from the same {found.right.shape[-1]:,} images.{star}",
        charts=[chart],
        given=[tables.corruption_groups(found), *gains, *(tables.heat_map(found, model) for model in found.models)],
    )


def ensembles(evaluation: Evaluation) -> Section | None:
    found = [each for each in (evaluation.ensemble, evaluation.adapted) if each is not None]
    if not found:
        return None
    said = "".join(f" {each.kind} under corruptions is missing: {each.reason}." for each in found if each.reason)
    return _section(
        "Asked several times",
        "The same classifiers, asked about views that a denoiser makes of each image: their mean over noise times (DiffAug ensemble), or "
        f"the image led back to what the denoiser knows (DDA). On a choice of the images, the same for both rows of a pair.{said}",
        given=[robust.columns_table(each) for each in found],
    )


def unknown(evaluation: Evaluation) -> Section | None:
    found = evaluation.unknown
    if found is None:
        return None
    score = "energy" if "energy" in found.scores else found.scores[0]
    legend = [("known", "known"), *((group, group) for group in ("near", "far") if any(row.group == group for row in found.rows))]
    charts = [
        _chart(
            f"{score}, {model}", f"How the score {score} of {model} falls for known and unknown images",
            figures.histogram(found, model, score, f"unknown-{place}-"), legend,
        )
        for place, model in enumerate(found.models)
    ]  # fmt: skip
    return _section(
        "Unknown inputs",
        f"Can it tell images of other things from its own {found.known_images:,}? AUROC 50 % is chance, 100 % perfect. FPR95: known images "
        "that are raised as unknown when 95 % of the unknown ones are. Near sets resemble what is known.",
        charts=charts,
        given=[tables.unknown_summary(found)],
        folded=tables.unknown_details(found),
    )


def calibration(evaluation: Evaluation) -> Section | None:
    found = evaluation.calibration
    if found is None:
        return None
    chart = _chart(
        "Reliability", "Accuracy against confidence in fifteen bins; the errors are in the table",
        figures.reliability_diagram(found, "reliability-"), _legend([each.model for each in found.models]),
        "On the dotted line confidence is accuracy; below it the classifier is too sure. Marks grow with the images in a bin.",
    )  # fmt: skip
    return _section("Calibration", "Whether its confidence can be believed.", charts=[chart], given=[tables.calibration_table(found)])


def entropy(evaluation: Evaluation) -> Section | None:
    found = evaluation.entropy
    if found is None:
        return None
    chart = _chart(
        "Entropy of predictions", "Mean entropy of predictions on one-step views against the noise time",
        figures.entropy_figure(found, "entropy-"), _legend(found.models), f"Dotted: the most there can be, {robust.nats(found.classes[0])}."
    )  # fmt: skip
    shares = "; ".join(f"{model} ends at {percent(found.share_of_maximum(model))} % of it" for model in found.models)
    return _section(
        "Does it notice when next to nothing is left?",
        f"{found.images:,} images went into noise and came back in one step. At the last time a view holds almost nothing of its image, "
        f"little more than a trace of its mean colour, and a classifier that knows this is nearly as unsure as can be: {shares}. That more "
        "is better there is the reading of the paper on DiffAug; for what a view still holds a little less than all can be right.",
        charts=[chart],
        given=[robust.entropy_table(found)],
    )


def certificates(evaluation: Evaluation) -> Section | None:
    found = evaluation.certified
    if found is None:
        return None
    plan = found.smoothing
    ceilings = "; ".join(
        f"ceiling {found.ceiling(sigma):.2f} at σ {sigma:g} ({figures.dash_of(order)[1]})" for order, sigma in enumerate(plan.sigmas)
    )
    chart = _chart(
        "Certified accuracy", "Certified accuracy against the radius; the figures are in the table",
        figures.certificate_curve(found, "certified-"), _legend(found.models), f"Upright lines: {ceilings}.",
    )  # fmt: skip
    return _section(
        "Certificates",
        f"{found.images:,} images, N0 = {plan.selection}, N = {plan.draws:,} draws each, alpha = {plan.alpha:g}: no change of an image "
        "within its L2 radius (of pixels in [0, 1]) changes what the denoised, smoothed classifier says. Each certificate is wrong with a "
        f"chance of up to alpha: of {found.images:,} of a classifier at one σ, up to {plan.alpha * found.images:.2g} are to be expected. "
        f"Above its ceiling a curve is 0 whatever the model: {plan.draws:,} draws cannot show more.",
        charts=[chart],
        given=[robust.certificate_table(found)],
    )


def attack(evaluation: Evaluation) -> Section | None:
    found = evaluation.attacked
    if found is None:
        return None
    plans = [each.attack for each in found.values()]
    radii = " and ".join(f"{robust.radius(plan)} in {plan.steps} steps" for plan in plans)
    return _section(
        "Under attack",
        f"Projected gradients within {radii}, exact through the denoiser. What survives so short an attack may fall to a better one: "
        "this table can show weakness only.",
        given=[robust.attack_table(found, evaluation.pair)],
    )


_SECTIONS: tuple[Callable[[Evaluation], Section | None], ...] = (
    accuracy, corruptions, ensembles, calibration, unknown, entropy, certificates, attack,
)  # fmt: skip


def limits(evaluation: Evaluation) -> list[str]:
    """What the figures do not say."""
    found = [
        *evaluation.notes,
        "Intervals are 95 % over test images drawn again, from one training run of each model; another training run is not in them. They "
        "are not widened for the number of comparisons on this page.",
        "No robustness against adversaries is claimed but within certified radii, and those hold for the smoothed classifier, not for the "
        "plain one.",
    ]
    if evaluation.corruptions is not None:
        found += [f"{note[0].upper()}{note[1:]}.".replace("`", "") for note in evaluation.corruptions.notes]
    if evaluation.certified is not None:
        plan = evaluation.certified.smoothing
        found.append(
            f"Certificates rest on {evaluation.certified.images:,} images and {plan.draws:,} draws each; more draws raise the ceiling, "
            "more images narrow the intervals."
        )
    if evaluation.calibration is not None:
        found.append("Calibration is of the models as they are; no temperature was fitted.")
    if evaluation.unknown is not None:
        found.append("What is far or near is whoever's choice gave the sets; scores stand at published settings, and nothing was tuned.")
        if bank := int(evaluation.unknown.settings.get("bank", 0)):
            fitted = [title for name, title in FITTED.items() if name in evaluation.unknown.scores]
            near = f"; of KNN k = {evaluation.unknown.settings['neighbours']}" if "KNN" in fitted else ""
            found += [f"Fitted to {bank:,} training images: {', '.join(fitted)}{near}."] if fitted else []
        found += [f"Unknown inputs: {note}." for note in evaluation.unknown.notes]
    return found


def _details(evaluation: Evaluation) -> list[tuple[str, list[tuple[str, str]]]]:
    made = evaluation.provenance
    machine = flatten({**made.hardware, "commit": made.commit or "not a checkout", **made.versions})
    settings = flatten({**evaluation.settings, **({"denoiser": evaluation.denoiser} if evaluation.denoiser else {})})
    return [("Settings", list(settings.items())), ("Machine and versions", list(machine.items()))]
