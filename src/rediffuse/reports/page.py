"""A comparison as one self-contained page: no request leaves it, every name in it is escaped."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rediffuse.evaluation.few_shot.compare import describe
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.generator import DIGITS_NOTE
from rediffuse.evaluation.few_shot.samples import Sample
from rediffuse.evaluation.few_shot.settings import DA_FUSION, GENERATED, REAL_GUIDANCE, STANDARD
from rediffuse.evaluation.statistics import MIN_SEEDS, verdict
from rediffuse.progress import counted, duration
from rediffuse.reports.figures import accuracy_curves
from rediffuse.reports.rendering import PAGE, flatten, render
from rediffuse.reports.sheet import contact_sheet
from rediffuse.reports.tables import level_table
from rediffuse.reports.words import arm_name, baseline_name, basis, level_name, percent, points, points_range, sentence
from rediffuse.writing import write_text

WORDS = {"helps": "▲ Helps", "no evidence": "● No evidence", "hurts": "▼ Hurts"}

READING = (
    "A verdict follows the interval of the paired difference, shots averaged within each seed first: helps or hurts where the interval "
    "leaves out zero."
)


def write_page(comparison: Comparison, folder: str | Path) -> Path:
    """Draw a comparison into `folder/report.html`, whole or not at all; returns the file.

    The page holds everything in one file and opens anywhere; the same figures lie beside it as comparison.json, table.parquet and
    cells.parquet (see `Comparison.save`).
    """
    path = Path(folder) / PAGE
    write_text(path, render_page(comparison))
    return path


def render_page(comparison: Comparison) -> str:
    """The page as text."""
    return render("compare.html.j2", _context(comparison))


def _context(comparison: Comparison) -> dict[str, Any]:
    missing = [describe(cell) for cell in comparison.missing()]
    first = comparison.samples[0] if comparison.samples else None
    return {
        "title": f"Does augmentation help on {comparison.name.removesuffix(' (train)')}?",
        "subtitle": _subtitle(comparison),
        "weak": f"{percent(comparison.card['classification_accuracy_score'])} %" if comparison.weak_generator else "",
        "banners": [note for note in comparison.notes if note == DIGITS_NOTE],
        "missing": missing,
        "asked": len(comparison.asked()),
        "verdicts": [card for level in comparison.levels if (card := _verdict(comparison, level)) is not None],
        "reading": READING,
        "charts": _charts(comparison),
        "tables": [level_table(comparison, level) for level in comparison.levels],
        "sheet": contact_sheet(comparison.samples),
        "sheet_caption": "" if first is None else _caption(first),
        "facts": _facts(comparison),
        "limits": _limits(comparison),
        "failures": [(describe(cell), reason) for cell, reason in comparison.failures.items()],
        "command": comparison.provenance.command,
        "details": _details(comparison),
        "colophon": f"Made on {comparison.provenance.date} by rediffuse {comparison.provenance.versions.get('rediffuse', '')}.",
    }


def _subtitle(comparison: Comparison) -> str:
    arms = ", ".join(arm_name(arm) for arm in comparison.arms)
    shots = ", ".join(map(str, comparison.shots))
    return (
        f"{arms}; {shots} photo{'' if comparison.shots == (1,) else 's'} of each of {len(comparison.classes)} classes, "
        f"{counted(len(comparison.seeds), 'seed')}, judged by {counted(len(comparison.labels), 'other photo')}."
    )


def _verdict(comparison: Comparison, level: str) -> dict[str, Any] | None:
    """The card of a level: what the last arm that makes copies is worth against the standard; None where nothing is known."""
    arm = next((arm for arm in (DA_FUSION, REAL_GUIDANCE) if arm in comparison.arms), None)
    gain = None if arm is None else comparison.gain(level, arm)
    if arm is None or gain is None:
        return None
    said = verdict(gain)
    pairs = [(DA_FUSION, REAL_GUIDANCE), (REAL_GUIDANCE, STANDARD)] if arm == DA_FUSION else []
    others = []
    for ours, theirs in pairs:
        other = comparison.gain(level, ours, theirs) if {ours, theirs} <= set(comparison.arms) else None
        if other is not None:
            interval = f" ({points_range(other)})" if points_range(other) else ""
            others.append(f"{arm_name(ours)} over {baseline_name(theirs)}: {points(other.value)}{interval}, {verdict(other)}")
    return {
        "level": level,
        "style": said.replace(" ", "-"),
        "word": WORDS[said],
        "value": points(gain.value),
        "range": points_range(gain),
        "basis": basis(gain),
        "sentence": sentence(said, arm, level_name(comparison, level), STANDARD),
        "others": others,
    }


def _charts(comparison: Comparison) -> list[dict[str, Any]]:
    from markupsafe import Markup

    found = []
    for level in comparison.levels:
        svg = accuracy_curves(comparison, level)
        if svg is not None:
            label = f"Accuracy over the number of photos for {level_name(comparison, level)}; the figures are in the tables below"
            found.append({"level": level, "label": label, "svg": Markup(svg)})  # matplotlib escapes text
    return found


def _caption(first: Sample) -> str:
    shots = counted(first.shots, "shot")
    return f"One photo of each class with its first copies, seed {first.seed}, {shots}. A dash is a strength that none of these copies has."


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The figures of effort."""
    spent = Counter[str]()
    for stage in comparison.stages:
        spent[stage.name] += int(1000 * stage.seconds)
    trained = sum(result.seconds for result in comparison.results)
    known = [
        ("Images made", f"{comparison.images:,}" if set(GENERATED) & set(comparison.arms) else ""),
        ("Model calls of one image", f"{calls:,}" if (calls := sum(stage.calls for stage in comparison.stages)) else ""),
        ("Making images", duration(spent["generate"] / 1000) if spent["generate"] else ""),
        ("Learning words", duration(spent["learn"] / 1000) if spent["learn"] else ""),
        ("Training and judging", duration(trained) if comparison.results else ""),
        ("In all", duration(comparison.seconds) if comparison.results else ""),
        ("Classifiers trained", f"{len(comparison.results):,}"),
        ("Photos to take shots from", f"{comparison.pool_images:,}"),
        ("Photos to judge by", f"{len(comparison.labels):,}"),
    ]
    return [(name, value) for name, value in known if value]


def _limits(comparison: Comparison) -> list[str]:
    limits = list(comparison.notes)
    if len(comparison.seeds) < MIN_SEEDS:
        limits.append(
            f"With fewer than {MIN_SEEDS} seeds, intervals say what other test photos would change, and nothing of what another "
            "training run would."
        )
    if comparison.model.get("name") == "tiny-imagenet-64" and "resnet-64" in comparison.levels:
        limits.append(
            "The bundled generator and the features resnet-64 learned from the same 51,000 pictures: at that level copies can bring little "
            "that is new."
        )
    if STANDARD in comparison.arms:
        limits.append(_standard(comparison))
    if {REAL_GUIDANCE, DA_FUSION} <= set(comparison.arms):
        making = comparison.settings["making"]
        limits.append(
            f"Real Guidance, by its definition, redraws at one strength, {making['guidance_strength']:g}; "
            f"DA-Fusion at {', '.join(f'{strength:g}' for strength in making['strengths'])}."
        )
    if comparison.settings.get("alpha") == "auto":
        limits.append(
            "The probability of a copy was chosen by cross-validation on the shots; DA-Fusion's words had seen all of them, which leans "
            "the choice a little towards copies."
        )
    limits += [
        "All arms share shots, start, batches, views and steps of a seed; the last step counts, and test photos choose nothing.",
        "Intervals are not widened for the number of comparisons on this page.",
    ]
    return limits


def _standard(comparison: Comparison) -> str:
    """What standard augmentation is at the levels of this comparison."""
    flips = bool(comparison.settings.get("photos", {}).get("flips", True))
    said = []
    if any(map(comparison.from_scratch, comparison.levels)):
        said.append(f"crops and turns{', and flips' if flips else ''}, from random weights")
    if not all(map(comparison.from_scratch, comparison.levels)):
        said.append(f"on frozen features {'the photo and its mirror image' if flips else 'the photo as it is'}")
    return f"Standard augmentation, which all arms share: {'; '.join(said)}."


def _details(comparison: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings, machine and versions, each as a table of names and values."""
    settings = {name: value for name, value in comparison.settings.items() if name not in ("photos", "test", "format")}
    arms = list(flatten(settings).items())
    chosen = Counter((result.cell.arm, result.alpha) for result in comparison.results if result.cell.arm in GENERATED)
    if comparison.settings.get("alpha") == "auto" and chosen:
        arms.append(("alpha chosen", "; ".join(f"{arm_name(arm)}: {alpha:g} ({count})" for (arm, alpha), count in sorted(chosen.items()))))
    made = comparison.provenance
    photos = flatten({"photos": comparison.settings.get("photos", {}), "test": comparison.settings.get("test", {})})
    machine = flatten({**made.hardware, "commit": made.commit or "not a checkout", **made.versions})
    return [("Settings", arms), ("Photos", list(photos.items())), ("Machine and versions", list(machine.items()))]
