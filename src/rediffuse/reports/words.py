"""Figures and names as people read them: points with signs, intervals, what arms and levels are."""

from __future__ import annotations

from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.settings import DA_FUSION, PIXELS, REAL_GUIDANCE, STANDARD
from rediffuse.evaluation.statistics import FEW, Interval, Verdict

ARM_NAMES = {
    PIXELS: "Raw pixels",
    STANDARD: "Standard augmentation",
    REAL_GUIDANCE: "Real Guidance",
    DA_FUSION: "DA-Fusion",
}
LEVEL_NAMES = {
    "forty": "a linear classifier on features of 40 base classes",
    "resnet-64": "a linear classifier on the bundled features, which know 150 classes",
}
MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


def arm_name(arm: str) -> str:
    return ARM_NAMES.get(arm, arm)


def baseline_name(arm: str) -> str:
    """An arm within a sentence: names of methods keep their capitals."""
    return arm_name(arm).lower() if arm in (PIXELS, STANDARD) else arm_name(arm)


def level_name(comparison: Comparison, level: str) -> str:
    """What the classifier knows at the start, as the subject of a sentence. NAME=scratch starts from random weights under any name."""
    if comparison.from_scratch(level):
        return "a classifier that starts from random weights"
    return LEVEL_NAMES.get(level, f"a linear classifier on the features of {level}")


def percent(share: float) -> str:
    """`41.2`, a share in per cent."""
    return f"{100 * share:.1f}".replace("-", MINUS)


def points(difference: float) -> str:
    """`+3.1`: a difference of shares in percentage points, always with a sign."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def accuracy_range(interval: Interval) -> str:
    """`39.1–43.3`; empty where there is no interval."""
    if interval.low is None or interval.high is None:
        return ""
    return f"{percent(interval.low)}–{percent(interval.high)}"


def points_range(interval: Interval) -> str:
    """`+1.0 to +5.2`; empty where there is no interval."""
    if interval.low is None or interval.high is None:
        return ""
    return f"{points(interval.low)} to {points(interval.high)}"


def basis(interval: Interval) -> str:
    """What the interval speaks of: `95 % over 4 seeds`."""
    if interval.low is None:
        return f"no interval: {interval.basis}" if interval.basis == FEW else "one value, no interval"
    if interval.basis == "seeds":
        return f"95{NARROW}% interval over {interval.runs} seeds"
    return f"95{NARROW}% interval over test images, {interval.basis}"


def with_basis(range_: str, interval: Interval) -> str:
    """`+1.0 to +5.2; 95 % interval over 4 seeds.`"""
    return f"{range_}; {basis(interval)}." if range_ else f"{basis(interval)[0].upper()}{basis(interval)[1:]}."


def sentence(verdict: Verdict, arm: str, classifier: str, baseline: str) -> str:
    """The verdict in words; `level_name` says which classifier."""
    subject, other = arm_name(arm), baseline_name(baseline)
    if verdict == "no evidence":
        return f"No evidence that {subject} differs from {other} for {classifier}."
    does = "helps" if verdict == "helps" else "hurts"
    return f"{subject} {does} {classifier}, compared with {other}."
