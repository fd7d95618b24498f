"""`rediffuse compare`: are classifiers better with the copies? On equal terms, with intervals, on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from rediffuse.cli import terminal
from rediffuse.cli.common import COMMON, MODEL, SINGLE_FILE, Common, SingleFile, check_apart, check_least, load_prompted
from rediffuse.cli.options import COPIES, LEARNING, REDRAWING, Learning, Redrawing
from rediffuse.cli.pair import NO_JUDGE, check_pair, open_pair
from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.cli.large import Work
    from rediffuse.evaluation.few_shot.settings import Making

WHAT = Group("What is compared", sort_key=2)
Arm = Literal["pixels", "standard", "real-guidance", "da-fusion"]
ARMS: tuple[Arm, ...] = ("standard", "real-guidance", "da-fusion")


def compare(
    data: str,
    /,
    *,
    out: Path = Path("comparison"),
    hours: float | None = None,
    dry_run: bool = False,
    split: str | None = None,
    test: str | None = None,
    no_flips: bool = False,
    shots: Annotated[tuple[int, ...] | None, Parameter(group=WHAT)] = None,
    seeds: Annotated[int, Parameter(group=WHAT)] = 4,
    arms: Annotated[tuple[Arm, ...] | None, Parameter(group=WHAT)] = None,
    classifier: Annotated[tuple[str, ...], Parameter(group=WHAT)] = ("scratch", "resnet-64"),
    train_steps: Annotated[int | None, Parameter(group=WHAT)] = None,
    view: Annotated[int | None, Parameter(group=WHAT)] = None,
    fit: Annotated[Literal["pad", "crop", "squash"], Parameter(group=WHAT)] = "pad",
    model: Annotated[str | None, Parameter(group=COPIES)] = None,
    copies: Annotated[int, Parameter(group=COPIES)] = 10,
    alpha: Annotated[str, Parameter(group=COPIES)] = "0.5",
    redrawing: Redrawing = REDRAWING,
    file: SingleFile = SINGLE_FILE,
    learning: Learning = LEARNING,
    common: Common = COMMON,
) -> int:
    """Find out whether copies make classifiers better here.

    Trains the same classifiers with and without copies, on few photos, several times, and draws a page. Says first what that costs.
    The same command again continues; more shots, seeds, arms or classifiers may be added.

    Args:
        data: class folders, a .csv or .parquet table, a folder of shards, digits, or hub:NAME.
        out: folder for the page, the figures and all that they were made from.
        hours: refuse to begin what would take longer by the estimate, and begin no classifier that would end later; the same command
            continues.
        dry_run: say what it costs, and stop.
        split: of a set that has several: the one to take shots from. [default: train]
        test: photos to be judged on: another folder or table, or a split. [default: the set's own; else a quarter is held out]
        no_flips: a mirrored photo would have another label (digits, text).
        shots: photos of each class to train on. [default: those of 1 2 4 8 that every class has]
        seeds: how often all is done again with other photos. From 4 on, intervals are over seeds.
        arms: pixels is logistic regression on raw pixels; standard is no copies: crops, turns and flips from scratch, on frozen
            features the photo and its mirror. [default: standard real-guidance da-fusion; of digits pixels too]
        classifier: what classifiers know at the start: scratch, resnet-64, a transformers folder or hub name, NAME=FOLDER.
        train_steps: of a classifier from scratch. [default: 400]
        view: side in pixels at which classifiers see photos. [default: the model's]
        fit: how photos become a square.
        model: the text-to-image model: a bundled name, a folder, a single .safetensors file, or a hub name. [default: tiny-imagenet-64]
        copies: of each photo.
        alpha: probability that a copy stands in for its photo; auto chooses it by cross-validation on the shots.
    """
    from rediffuse.cli.large import guard, guard_opened
    from rediffuse.cli.outcome import show
    from rediffuse.evaluation.few_shot.compare import compare as run
    from rediffuse.evaluation.few_shot.settings import DA_FUSION, GENERATED, SHOTS
    from rediffuse.reports.page import write_page

    redrawing.check()
    file.check(model)
    check_least({"--view": view, "--train-steps": train_steps, "--copies": copies})
    check_pair(data, NO_JUDGE, split=split, test=test)
    check_apart(data, out)
    terminal.goes_on_from(*kept_in(out))
    arms = arms or (("pixels", *ARMS) if data == "digits" else ARMS)
    if DA_FUSION not in arms:
        check_without_words(redrawing, learning, common.quiet)
    else:
        learning.say_rounding(common.quiet)
    asking: dict[str, Any] = {
        "seeds": range(common.seed, common.seed + seeds) if seeds > 0 else seeds, "arms": arms, "levels": classifier, "steps": train_steps,
        "alpha": parse_alpha(alpha), "making": to_making(copies, redrawing, learning), "fit": fit,
    }  # fmt: skip
    check_asked(shots or SHOTS, view, asking)
    makes = bool(set(arms) & set(GENERATED))
    named, price = model if makes else MODEL, pricing(arms, shots or SHOTS, seeds, copies, redrawing, learning)
    guard(data, named, price, common)
    images, held = open_pair(data, split=split, test=test, flips=not no_flips, quiet=common.quiet)
    guard_opened(images, named, price, common)
    found = run(
        images, held, load_prompted(model or MODEL, common, file) if makes else None, out=out, shots=shots, hours=hours, dry_run=dry_run,
        copies=copies, size=view, command=terminal.typed(), progress=not common.quiet, **asking,
    )  # fmt: skip
    if dry_run:
        return 0
    page = write_page(found, out)
    show(found)
    terminal.say(f"\nThe page: {page}")
    return 1 if found.missing() else 0


def kept_in(out: Path) -> list[tuple[Path, str]]:
    """Where a comparison keeps what it goes on from: finished cells, and words and copies that some will learn from."""
    from rediffuse.concepts.tokens import BEGUN
    from rediffuse.data.outputs import CELLS
    from rediffuse.generation.store import FINISHED

    return [(out / CELLS, "**/seed-*[0-9].json"), (out, f"**/{FINISHED}"), (out, f"**/{BEGUN}")]


def pricing(
    arms: Sequence[Arm], shots: Sequence[int], seeds: int, copies: int, redrawing: Redrawing, learning: Learning
) -> Callable[[int, int], Work]:  # fmt: skip
    """From (photos, classes) to what a comparison makes and learns."""
    from rediffuse.cli.large import Work
    from rediffuse.evaluation.few_shot.settings import DA_FUSION, GENERATED, REAL_GUIDANCE

    def price(_: int, classes: int) -> Work:
        made = sum(max(shots) if arm == REAL_GUIDANCE else sum(shots) for arm in arms if arm in GENERATED) * classes * seeds * copies
        words = classes * seeds * len(shots) * (DA_FUSION in arms)
        return Work(images=made, calls=redrawing.calls, samples=words * learning.find().samples_per_class)

    return price


def check_asked(shots: tuple[int, ...], view: int | None, asking: Mapping[str, Any]) -> None:
    """Refuse settings out of range and classifiers that are not there before photos and models are read. Raises RediffuseError."""
    from rediffuse.evaluation.few_shot.compare import LARGEST
    from rediffuse.evaluation.few_shot.settings import make_settings
    from rediffuse.training.backbones import FROM_RANDOM
    from rediffuse.training.model_folders import model_folder

    chosen = make_settings(shots=shots, size=LARGEST if view is None else view, **asking)
    for _, level in chosen.levels:
        if level not in FROM_RANDOM:
            model_folder(level)


def check_without_words(redrawing: Redrawing, learning: Learning, quiet: bool) -> None:
    """Say what was given that counts for the arm da-fusion alone, which may join later. Raises ConfigError for strengths."""
    if redrawing.strengths:
        raise ConfigError("--strengths are da-fusion's, which is not among --arms; real-guidance always redoes .5")
    given = ["--law"] * (redrawing.law != REDRAWING.law) + ["--recipe"] * (learning.recipe != LEARNING.recipe)
    given += ["--samples"] * (learning.samples is not None)
    if given:
        terminal.note(f"{' and '.join(given)} will count when da-fusion joins --arms; no arm here needs that.", quiet=quiet, style="yellow")


def parse_alpha(text: str) -> float | Literal["auto"]:
    """A probability, or the word auto. Raises ConfigError."""
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--alpha must be a number in [0, 1], or auto, got {text!r}") from error


def to_making(copies: int, redrawing: Redrawing, learning: Learning) -> Making:
    """The options as a comparison takes them."""
    from rediffuse.evaluation.few_shot.settings import Making

    learning.find()
    given: dict[str, Any] = {} if redrawing.guidance is None else {"guidance_scale": redrawing.guidance}
    return Making(
        copies=copies,
        strengths=redrawing.chosen_strengths,
        law=redrawing.law,
        solver=redrawing.solver,
        steps=redrawing.steps,
        recipe=learning.recipe if learning.samples is None else learning.find(),
        batch=redrawing.batch,
        **given,
    )
