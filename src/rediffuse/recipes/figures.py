"""The figures of README and docs, drawn from the files under results/.

    python -m rediffuse.recipes.figures

Shows: what copies gain over standard augmentation and over Real Guidance, set by set and level by level (`gains.png`); what DiffAug's arms
reach under corruptions (`robustness.png`); certified accuracy under the ceilings that draws set, beside the control without a denoiser
(`certificates.png`); entropy against noise (`entropy.png`); confidence against accuracy (`reliability.png`). A figure whose result is not
there is not drawn; a reduced result stands in for a whole one. Seconds, on any machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from rediffuse.errors import DataError, RediffuseError
from rediffuse.evaluation.results import Result, read_result
from rediffuse.recipes.certified_cifar10 import BARE
from rediffuse.recipes.render import BASELINES, LEVELS

INK, FAINT = "#1d2733", "#d5dbe1"
COLOURS = ("#0b6e99", "#c2561a", "#4b8b3b", "#7b4fa3", "#8a6d00", "#a3324b", "#2a8c82", "#5c6670", "#b0478f")
DPI = 160


def gains(results: Mapping[str, Result], axes: Any) -> bool:
    """Points of accuracy that DA-Fusion gains, a line a set and level, with 95 % intervals."""
    lines = []
    for name, result in results.items():
        if name.startswith("compare_"):
            for end, level in LEVELS.items():
                found = [result.headline.get(start + end) for start in BASELINES]
                if any(found):
                    lines.append((f"{name.removeprefix('compare_').replace('_', ' ')}, {level}", found))
    if not lines:
        return False
    for row, (_, found) in enumerate(reversed(lines)):
        for place, (figure, colour, marker) in enumerate(zip(found, COLOURS, "os", strict=False)):
            if figure is not None:
                height = row + 0.15 - 0.3 * place
                axes.plot(100 * figure.value, height, marker, color=colour, markersize=5)
                if figure.low is not None and figure.high is not None:
                    axes.plot([100 * figure.low, 100 * figure.high], [height, height], color=colour, linewidth=1.5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(lines)), [label for label, _ in reversed(lines)])
    axes.set_xlabel("points of accuracy that DA-Fusion gains, 95 % intervals over seeds")
    for heading, colour, marker in zip(BASELINES.values(), COLOURS, "os", strict=False):
        axes.plot([], [], marker, color=colour, label=heading)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16 if len(lines) > 6 else -0.25), ncols=2)
    return True


def robustness(results: Mapping[str, Result], axes: Any) -> bool:
    """Accuracy of each arm on clean pictures, under all corruptions, and at severity 5."""
    rows = table(results, "diffaug_cifar10", "arms")
    if not rows:
        return False
    rows = [row for row in rows if row["net"] == rows[0]["net"]]
    for measure, colour, marker in zip(("clean", "corrupted", "corrupted_5"), COLOURS, "osD", strict=False):
        for place, row in enumerate(reversed(rows)):
            axes.plot(100 * row[measure], place, marker, color=colour, markersize=5)
            if row.get(f"{measure}_low") is not None:
                axes.plot([100 * row[f"{measure}_low"], 100 * row[f"{measure}_high"]], [place, place], color=colour, linewidth=1.5)
        axes.plot([], [], marker, color=colour, label=measure.replace("_", " at severity "))
    axes.set_yticks(range(len(rows)), [row["arm"] for row in reversed(rows)])
    axes.set_xlabel("accuracy, %")
    axes.legend(frameon=False)
    return True


def certificates(results: Mapping[str, Result], axes: Any) -> bool:
    """Certified accuracy along the radius, a colour an arm, a dash a sigma; upright lines are the ceilings that draws set."""
    rows = table(results, "certified_cifar10", "curve")
    if not rows:
        return False
    dashes = dict(zip(sorted({row["sigma"] for row in rows}), cycle(("-", "--", ":", "-.")), strict=False))
    arms = dict.fromkeys((row["arm"], row["smoother"]) for row in rows)
    denoised = [arm for arm in arms if arm[1] != BARE]
    colours = dict.fromkeys(arms, INK) | dict(zip(denoised, COLOURS, strict=False))  # what no denoiser helps is in ink
    for arm in arms:
        own = [row for row in rows if (row["arm"], row["smoother"]) == arm]
        for place, row in enumerate(own):
            label = (arm[0] if arm[1] != BARE else f"{arm[0]}, {BARE}") if place == 0 else None
            x, y = zip(*row["points"], strict=True)
            axes.plot(x, [100 * value for value in y], dashes[row["sigma"]], color=colours[arm], label=label)
    for sigma, top in {row["sigma"]: row["ceiling"] for row in rows}.items():
        axes.axvline(top, color=INK, linewidth=0.8, linestyle=dashes[sigma], alpha=0.6)
        axes.annotate(
            f"\u03c3 {sigma:g}", (top, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points", ha="center",
        )  # fmt: skip
    axes.set_xlim(0, 1.04 * max(row["ceiling"] for row in rows))
    axes.set_ylim(0, None)
    said = "; ".join(dict.fromkeys(f"{row['images']:,} pictures, N = {row['draws']:,} draws each" for row in rows))
    axes.set_xlabel(f"L2 radius on [0, 1] pictures ({said};\nupright: the most that N can certify at each \u03c3)")
    axes.set_ylabel("certified accuracy, %")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return True


def entropy(results: Mapping[str, Result], axes: Any) -> bool:
    """Share of the largest entropy against the noise time, a line an arm."""
    rows = table(results, "calibration_cifar10", "entropy")
    if not rows:
        return False
    for arm, colour in zip(dict.fromkeys(row["arm"] for row in rows), COLOURS, strict=False):
        own = [row for row in rows if row["arm"] == arm]
        axes.plot([row["t"] for row in own], [100 * row["share"] for row in own], color=colour, label=arm)
    axes.set_xlabel("noise time t")
    axes.set_ylabel("entropy, % of log K")
    axes.set_ylim(0, 102)
    axes.legend(frameon=False)
    return True


def reliability(results: Mapping[str, Result], axes: Any) -> bool:
    """Accuracy against confidence, a line an arm; on the diagonal confidence can be believed."""
    rows = table(results, "calibration_cifar10", "diagram")
    if not rows:
        return False
    axes.plot([0, 100], [0, 100], ":", color=INK, linewidth=1)
    for row, colour in zip(rows, COLOURS, strict=False):
        points = [(100 * said, 100 * true) for said, true in zip(row["confidence"], row["accuracy"], strict=True) if said is not None]
        axes.plot([point[0] for point in points], [point[1] for point in points], "o-", color=colour, markersize=3, label=row["arm"])
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False)
    return True


FIGURES: Mapping[str, Callable[[Mapping[str, Result], Any], bool]] = {
    "gains": gains,
    "robustness": robustness,
    "certificates": certificates,
    "entropy": entropy,
    "reliability": reliability,
}


def table(results: Mapping[str, Result], name: str, of: str) -> list[Mapping[str, Any]]:
    """The rows of a table of a result, or of the reduced one where the recipe has not run whole; none where there is neither."""
    found = results.get(name) or results.get(f"reduced_{name}")
    return [] if found is None else [row for row in found.rows if row.get("table") == of]


def draw(results: Mapping[str, Result], folder: Path) -> list[Path]:
    """Write what can be drawn; returns the files."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    own: Any = {"axes.edgecolor": FAINT, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "font.size": 9}
    written = []
    for name, form in FIGURES.items():
        with rc_context(own):
            lines = sum(key.startswith("compare_") for key in results) * len(LEVELS) if name == "gains" else 9
            figure = Figure(figsize=(6.4, 1.2 + 0.3 * lines), layout="constrained", facecolor="white")
            axes = figure.add_subplot()
            if not form(results, axes):
                continue
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="both", color=FAINT, linewidth=0.5)
            axes.set_axisbelow(True)
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
            written.append(folder / f"{name}.png")
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the figures")
    given = parser.parse_args(arguments)
    try:
        found = [read_result(file) for file in sorted(given.results.glob("*.json"))]
        if not found:
            raise DataError(f"{given.results} holds no results; give the folder that does")
        written = draw({result.name: result for result in found}, given.out)
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(f"wrote {path}" for path in written) or "nothing to draw")
    return 0


if __name__ == "__main__":
    sys.exit(main())
