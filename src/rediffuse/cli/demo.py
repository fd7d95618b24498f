"""`rediffuse demo`: the main job from end to end, on models inside the package and real digits that scikit-learn carries."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from rediffuse.cli import terminal
from rediffuse.cli.common import COMMON, MODEL, SINGLE_FILE, Common, SingleFile, load_prompted
from rediffuse.errors import ConfigError
from rediffuse.progress import duration

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet
    from rediffuse.evaluation.few_shot.comparison import Comparison
    from rediffuse.evaluation.few_shot.settings import Making

SIZE = Group("How much", sort_key=2)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much a demo does. steps: of a redrawing; samples: of learning, a class; train_steps: of a new network; view: its pixels."""

    name: str
    classes: int = 10
    shots: tuple[int, ...] = (4,)
    seeds: int = 3
    copies: int = 5
    arms: tuple[str, ...] = ("pixels", "standard", "da-fusion")
    levels: tuple[str, ...] = ("scratch",)
    steps: int = 8
    samples: int = 100
    train_steps: int = 400
    view: int = 32


# 600 images of 10 calls, 3,000 samples of learning, 6 small networks: 7 minutes on two cores with AVX2 alone.
# 100 samples a class: more teach a word no better (results/learning_budget.json). 8 steps are 38 dB and more from 48 below strength 1
# (results/sampling_steps.json).
NORMAL = Extent(name="digits")
QUICK = Extent(name="quick", classes=4, shots=(2,), seeds=1, copies=2, samples=16, train_steps=60)
FULL = Extent(
    name="full",
    shots=(1, 2, 4, 8),
    seeds=4,
    copies=10,
    arms=("pixels", "standard", "real-guidance", "da-fusion"),
    levels=("scratch", "resnet-64"),
    steps=12,
    samples=480,
    view=64,
)
START = "handwritten digit"
"""Where the words begin: the generator has seen digits under this caption alone, never under their names."""


def demo(
    *,
    quick: Annotated[bool, Parameter(group=SIZE)] = False,
    full: Annotated[bool, Parameter(group=SIZE)] = False,
    out: Path | None = None,
    results: Path | None = None,
    model: str = MODEL,
    file: SingleFile = SINGLE_FILE,
    common: Common = COMMON,
) -> int:
    """See all of it work, on real digits: learn, generate, train with and without, report.

    Needs no network and no images: models are in the package, 1,797 scanned digits in scikit-learn. Some minutes on two cores.

    Args:
        quick: a taste in less than a minute; its figures say nothing.
        full: more shots, seeds and arms: an hour or so.
        out: folder for page and figures. [default: demo/digits, demo/quick or demo/full]
        results: also write the figures into this .json file.
        model: the text-to-image model: a bundled name, a folder, a single .safetensors file, or a hub name.
    """
    from rediffuse.cli.compare import kept_in
    from rediffuse.cli.outcome import show
    from rediffuse.evaluation.few_shot.compare import compare
    from rediffuse.reports.page import write_page

    began = time.monotonic()
    if quick and full:
        raise ConfigError("--quick and --full contradict each other; give one")
    file.check(model)
    if results is not None and results.suffix != ".json":
        raise ConfigError(f"--results names a .json file, got {results}")
    extent = QUICK if quick else FULL if full else NORMAL
    place = Path("demo") / extent.name if out is None else out
    terminal.goes_on_from(*kept_in(place))
    fresh = not (place / "settings.json").exists()
    if results is not None and not fresh:
        raise ConfigError(f"--results wants a demo from nothing, and {place} holds one already; give another --out")
    photos, held = digits(extent.classes)
    terminal.note(opening(extent, len(held)), quiet=common.quiet)
    found = compare(
        photos, held, load_prompted(model, common, file), out=place, shots=extent.shots, arms=extent.arms, levels=extent.levels,
        seeds=range(common.seed, common.seed + extent.seeds), copies=extent.copies, making=making(extent), steps=extent.train_steps,
        size=extent.view, command=terminal.typed(), progress=not common.quiet,
    )  # fmt: skip
    page = write_page(found, place)
    show(found, verdicts=False)
    seconds, peak = time.monotonic() - began, peak_gib()
    close(found, page, seconds, peak, fresh)
    if quick:
        terminal.say("\nSo few scans say nothing about the method. The whole demo, some minutes:\n  rediffuse demo")
    if results is not None:
        write(results, found, seconds, peak)
    return 1 if found.missing() else 0


def digits(classes: int) -> tuple[ImageSet, ImageSet]:
    """The first of the ten digits, to take shots from and to be judged by."""
    from rediffuse.data.digits import digits as scans

    def first(images: ImageSet) -> ImageSet:
        names = images.classes[:classes]
        rows = [row for row, label in enumerate(images.labels) if label is not None and label < classes]
        return images.subset(rows).with_classes(names)

    return first(scans(split="train")), first(scans(split="test"))


def making(extent: Extent) -> Making:
    """How copies are made: a shorter schedule and shorter learning than the defaults, to keep within minutes."""
    from rediffuse.concepts.recipes import find_recipe
    from rediffuse.evaluation.few_shot.settings import Making

    recipe = replace(find_recipe("fast"), start=START).with_samples(extent.samples)
    return Making(copies=extent.copies, steps=extent.steps, recipe=recipe)


def opening(extent: Extent, held: int) -> str:
    """What is about to happen."""
    shots, again = " or ".join(map(str, extent.shots)), f", {extent.seeds} times over" if extent.seeds > 1 else ""
    return (
        f"From {shots} scans of each of {extent.classes} digits: learn a word for each, make {extent.copies} copies of every scan, "
        f"train small classifiers with and without them{again}, and judge them by {held:,} other scans."
    )


def close(found: Comparison, page: Path, seconds: float, peak: float | None, fresh: bool) -> None:
    """The figures that one takes home, and what to type next."""
    from rediffuse.cli.outcome import accuracy, gained

    level = found.levels[0]
    gain, said = found.gain(level, "da-fusion"), found.verdict(level, "da-fusion")
    lines = [
        ("without copies", f"{accuracy(found.accuracy(level, 'standard'))} % right"),
        ("with DA-Fusion's copies", f"{accuracy(found.accuracy(level, 'da-fusion'))} % right"),
        ("difference", f"{gained(gain)}: {said}" if gain else "missing"),
        ("wall time", duration(seconds) + ("" if fresh else ", with what an earlier demo had left")),
        ("peak memory", "unknown" if peak is None else f"{peak:.2f} GiB"),
        ("the page", str(page)),
    ]
    terminal.say()
    terminal.pairs(lines)
    terminal.say("\nWith photos of your own, one folder a class:\n  rediffuse augment photos/ more/\n  rediffuse compare photos/")


def peak_gib() -> float | None:
    """Most memory that this process held, in GiB; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most / (2**30 if sys.platform == "darwin" else 2**20))  # bytes there, KiB elsewhere


def write(results: Path, found: Comparison, seconds: float, peak: float | None) -> None:
    """The figures as a results file."""
    from rediffuse.evaluation.results import Figure, write_result

    headline: dict[str, Figure] = {"wall_seconds": Figure(value=seconds)}
    if peak is not None:
        headline["peak_gib"] = Figure(value=peak)
    gain = found.gain(found.levels[0], "da-fusion")
    if gain is not None:
        headline["gain_da_fusion"] = Figure.of(gain)
    device = str(found.provenance.hardware.get("device", "cpu"))
    made = found.provenance
    path = write_result(
        results.stem, headline, found.rows(), seconds, command=made.command, folder=results.parent, device=device, notes=found.limits
    )
    terminal.say(f"The figures: {path}")
