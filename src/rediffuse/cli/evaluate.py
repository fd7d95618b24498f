"""`rediffuse evaluate`: whether a classifier, or which of two, is to be trusted; on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from rediffuse.cli import terminal
from rediffuse.cli.common import BESIDE, PIXEL_MODEL, Beside, Common, check_fit, check_least, check_own, load_model
from rediffuse.data.outputs import EVALUATION_KIND, WORK
from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet
    from rediffuse.denoisers.base import Denoiser
    from rediffuse.evaluation.judged import Judged
    from rediffuse.evaluation.suite.evaluate import Bench
    from rediffuse.evaluation.suite.result import Evaluation
    from rediffuse.evaluation.suite.settings import Suite

WITH = Group("What it is judged with", sort_key=2)
PLACES = "MODEL [OTHER] PHOTOS"
NO_DENOISER = "none"


def evaluate(
    *places: Annotated[str, Parameter(name=PLACES)],
    suite: Literal["robust", "few-shot", "full"] = "robust",
    out: Path = Path("evaluation"),
    report: Annotated[bool, Parameter(negative="--no-report", show_default=False)] = True,
    hours: float | None = None,
    dry_run: bool = False,
    split: str | None = None,
    images: int | None = None,
    size: int | None = None,
    fit: str | None = None,
    denoiser: Annotated[str | None, Parameter(group=WITH)] = None,
    near: Annotated[tuple[str, ...], Parameter(group=WITH, show_default=False)] = (),
    far: Annotated[tuple[str, ...], Parameter(group=WITH, show_default=False)] = (),
    train: Annotated[str | None, Parameter(group=WITH)] = None,
    common: Beside = BESIDE,
) -> int:
    """Find out what a classifier is worth beyond its accuracy, or which of two is better, and draw a page.

    Says first what that costs. The same command continues an interrupted one; further sets, larger suites and a second classifier join it.

    Args:
        places: one classifier or two (a transformers folder, such as train writes, or a hub name), then labelled
            photos that they were not trained on: class folders, a .csv or .parquet table, a folder of shards, digits, or hub:NAME.
        suite: few-shot: accuracy and calibration; robust: also corruptions, unknown inputs, entropy on noisy views, the DiffAug ensemble;
            full: also certificates, an attack and DDA.
        out: folder for the page, evaluation.json and what is done so far.
        report: draw the page.
        hours: refuse to begin what would take longer.
        dry_run: say what it costs, and stop.
        split: of a set that has several. [default: its test photos]
        images: how many photos to judge by: a choice that --seed fixes. [default: all]
        size: side in pixels at which photos are seen. [default: the first classifier's, or the denoiser's where that is smaller]
        fit: how photos of other shapes become a square: pad, crop, squash, or crop:0.875 for the middle of so much of the short side.
            [default: as in the first classifier's training, or as its published file asks for, else pad]
        denoiser: an unconditional pixel model, for entropy, ensembles and certificates: a bundled name, a folder or a hub name; none
            leaves those parts out. [default: cifar10-32 where photos are seen at 32 pixels or fewer, else none]
        near: sets of photos that the classifiers do not know but that resemble what they know.
        far: sets of photos of quite other things.
        train: photos that the classifiers were trained on, or the name of that split, for the scores KNN, Mahalanobis and ReAct.
    """
    from rediffuse.checking import check_hours
    from rediffuse.evaluation.kept import KEPT_BLOCKS
    from rediffuse.evaluation.suite.result import check_vacant

    check_hours(hours)
    check_least({"--size": size, "--images": images})
    check_fit(fit)
    check_wanted(suite, denoiser, near, far, train)
    check_own(out, EVALUATION_KIND)
    terminal.goes_on_from((out / WORK, f"**/{KEPT_BLOCKS}"))
    bench = prepare(places, suite, out, split, images, size, fit, denoiser, near, far, train, common)
    if not dry_run:
        check_vacant(out, bench.asked)
    if not bench.done:
        terminal.note("Measuring how fast the classifiers are here.", quiet=common.quiet)
    cost = bench.price()
    if dry_run:
        terminal.say(cost.summary())
        return 0
    terminal.note(cost.summary(), quiet=common.quiet)
    cost.check(hours)
    found = run(bench, common.quiet)
    show(found)
    terminal.say(f"\nThe figures: {found.save(out)}")
    if report:
        from rediffuse.reports.evaluation import write_page

        terminal.say(f"The page: {write_page(found, out)}")
    return 1 if found.failures() else 0


def prepare(
    places: Sequence[str],
    suite: Suite,
    out: Path,
    split: str | None,
    images: int | None,
    size: int | None,
    fit: str | None,
    denoiser: str | None,
    near: Sequence[str],
    far: Sequence[str],
    train: str | None,
    common: Common,
) -> Bench:
    """Open all that the command names, and check it."""
    specs, data = parse_places(places)
    from rediffuse.cli.pair import NO_JUDGE, check_real
    from rediffuse.cli.predict import usual_fit
    from rediffuse.denoisers.precision import resolve_device
    from rediffuse.evaluation.suite.evaluate import Bench

    check_real(data, NO_JUDGE, split)
    models = open_models(specs, str(resolve_device(common.device)))
    believer, side, reason = choose_denoiser(denoiser, models[0].network, size, suite, common)
    bench = Bench.prepare(
        models,
        open_set(data, split, common.quiet, labelled=True),
        suite=suite,
        size=side,
        fit=usual_fit(models[0].network) if fit is None else fit,
        denoiser=believer,
        near=[open_set(spec, None, common.quiet) for spec in near],
        far=[open_set(spec, None, common.quiet) for spec in far],
        train=None if train is None else open_train(data, train, common.quiet),
        images=images,
        seed=common.seed,
        settings=None,
        keep=out / "work",
    )
    for line in bench.notes:
        terminal.note(line, style="yellow")  # --quiet does not keep that back
    return because(bench, reason, common.quiet)


def check_wanted(suite: Suite, denoiser: str | None, near: Sequence[str], far: Sequence[str], train: str | None) -> None:
    """Refuse what no part of a suite would ask for, before any work. Raises ConfigError."""
    from rediffuse.evaluation.suite.settings import NEEDS_DENOISER, PARTS, UNKNOWN

    parts = set(PARTS[suite])
    given = {} if UNKNOWN in parts else {"near": " ".join(near), "far": " ".join(far), "train": train}
    if not parts & set(NEEDS_DENOISER) and denoiser != NO_DENOISER:
        given["denoiser"] = denoiser
    for name, value in given.items():
        if value:
            raise ConfigError(f"--{name} {value} belongs to --suite robust or full, got --suite {suite}; leave it out, or ask for robust")


def choose_denoiser(asked: str | None, network: object, size: int | None, suite: Suite, common: Common) -> tuple[Denoiser | None, int, str]:
    """(denoiser, side of the photos, why there is no denoiser): as asked for, else the bundled one where it knows photos of that side."""
    from rediffuse.cli.predict import fits, usual_size
    from rediffuse.evaluation.suite.settings import NEEDS_DENOISER, PARTS
    from rediffuse.training.classifier import Classifier

    given = None if asked in (None, NO_DENOISER) else load_model(str(asked), common)
    if size is None and not isinstance(network, Classifier):
        raise ConfigError("--size must say at which side in pixels photos are seen")
    side = usual_size(network, given) if size is None and isinstance(network, Classifier) else int(size or 0)
    if asked is not None:
        return given, side, "" if given is not None else f"--denoiser {NO_DENOISER} was asked for"
    if not set(PARTS[suite]) & set(NEEDS_DENOISER):
        return None, side, ""
    bundled = load_model(PIXEL_MODEL, common)
    if fits(side, bundled):
        terminal.note(f"Views by the bundled {PIXEL_MODEL}; --denoiser names another one, or none.", quiet=common.quiet)
        return bundled, side, ""
    knows = f"the bundled {PIXEL_MODEL} knows {bundled.size} pixels, and photos are seen at {side}"
    return None, side, f"{knows}; name a model for {side} with --denoiser, or judge at --size {bundled.size}"


def because(bench: Bench, reason: str, quiet: bool) -> Bench:
    """The bench, which says of parts without a denoiser why there is none."""
    from rediffuse.evaluation.suite.settings import NEEDS_DENOISER

    lost = [each.part for each in bench.skipped if each.part in NEEDS_DENOISER]
    if not (lost and reason):
        return bench
    terminal.note(f"Without {', '.join(lost)}: {reason}.", quiet=quiet, style="yellow")
    return replace(bench, skipped=tuple(replace(each, reason=reason) if each.part in lost else each for each in bench.skipped))


def run(bench: Bench, quiet: bool) -> Evaluation:
    """All parts, each with a bar that knows how long it will take."""
    from rediffuse.progress import Bar

    with Bar(not quiet, "images") as shown:
        begun: list[str] = []

        def watch(part: str) -> object:
            begun.append(part)
            shown.stage(f"{part} ({len(begun)} of {len(bench.parts)})")
            return shown.report

        return bench.run(watch, terminal.typed())  # type: ignore[arg-type]  # what a bar reports is a progress


def parse_places(places: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """(classifiers, images): the last place is the images. Raises ConfigError for fewer than two places, or more than three."""
    if len(places) not in (2, 3):
        raise ConfigError(f"evaluate takes one classifier or two, then the photos: rediffuse evaluate {PLACES}; got {len(places)} of them")
    return tuple(places[:-1]), places[-1]


def open_models(specs: Sequence[str], device: str) -> list[Judged]:
    """The classifiers, named by the last part of their paths where that tells them apart."""
    from rediffuse.evaluation.judged import Judged

    short = [Path(spec).name or spec for spec in specs]
    names = short if len(set(short)) == len(short) else list(specs)
    places = {Path(spec).resolve() if Path(spec).exists() else spec for spec in specs}
    if len(places) != len(specs):
        raise ConfigError(f"the two classifiers are one, {specs[0]}; name another one, or leave the second out")
    return [Judged.open(spec, device=device, name=name) for spec, name in zip(specs, names, strict=True)]


def open_set(spec: str, split: str | None, quiet: bool, *, labelled: bool = False) -> ImageSet:
    """Photos to be judged by, or unknown ones; of a set with splits the test photos unless another one is named."""
    from rediffuse.cli.common import open_photos
    from rediffuse.cli.pair import TEST_NAMES, split_names
    from rediffuse.cli.predict import open_any
    from rediffuse.errors import DataError

    there = split_names(spec)
    own = next((name for name in TEST_NAMES if name in there), None) if split is None else split
    images = open_photos(spec, split=own, quiet=quiet) if labelled else open_any(spec, own, quiet)
    if not len(images):
        raise DataError(f"{spec} holds no photos; leave it out, or give it some")
    return images


def open_train(data: str, train: str, quiet: bool) -> ImageSet:
    """Training photos: a split of the data, or a place of their own."""
    from rediffuse.cli.common import open_photos
    from rediffuse.cli.pair import TRAIN_NAMES, split_names

    if train in split_names(data) and not Path(train).exists():
        return open_photos(data, split=train, quiet=quiet)
    there = split_names(train)
    return open_photos(train, split=next((name for name in TRAIN_NAMES if name in there), None), quiet=quiet)


def show(found: Evaluation) -> None:
    """The cards of the page as a table, and what is missing."""
    from rediffuse.reports.evaluation_cards import cards

    rows = [
        (
            f"{card['kicker']} of {card['of']}" if found.pair and "of" in card else card["kicker"],
            f"{card['big']} {card['unit']}",
            card["word"],
            card["range"],
        )
        for card in cards(found)
    ]
    both = " over ".join(found.models)
    terminal.table(("", both, "", ""), rows)
    for part in found.skipped:
        terminal.say(f"Without {part.part}: {part.reason}.", style="yellow" if part.failed else "dim")
