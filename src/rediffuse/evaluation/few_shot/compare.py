"""Does augmentation help here? Arms against each other on equal shots, seeds, steps and test images; resumable, priced first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rediffuse.checking import check_hours
from rediffuse.data.open import open_images
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser, check_denoiser
from rediffuse.errors import RediffuseError
from rediffuse.evaluation.few_shot.bench import Bench
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.cost import estimate
from rediffuse.evaluation.few_shot.settings import DA_FUSION, REAL_GUIDANCE, SHOTS, STANDARD, Cell, Making, make_settings
from rediffuse.progress import counted, notes, roughly
from rediffuse.training.backbones import SCRATCH

LARGEST = 224
"""Side in pixels above which classifiers do not see photos unless told to."""


def compare(
    images: ImageSet | str | Path,
    test: ImageSet | str | Path | None,
    model: Denoiser | None,
    *,
    out: str | Path,
    shots: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 4,
    arms: Sequence[str] = (STANDARD, REAL_GUIDANCE, DA_FUSION),
    levels: Sequence[str] = (SCRATCH, "resnet-64"),
    copies: int = 10,
    alpha: float | Literal["auto"] = 0.5,
    hours: float | None = None,
    making: Making | None = None,
    steps: int | None = None,
    size: int | None = None,
    fit: Literal["pad", "crop", "squash"] = "pad",
    command: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Comparison:
    """Train the same classifiers with and without copies, and say what the copies are worth.

    A seed fixes shots, words, copies, the classifier's start, the photos of every batch and their views, for all arms alike; all take the
    same steps, and the last step counts. The same call goes on where a killed one stopped; later calls may ask for more shots, seeds, arms
    or levels in the same folder.

    Args:
        images: labelled photos that shots are taken from, or their path.
        test: labelled photos that judge, and choose nothing. None holds out a quarter of each class.
        model: the text-to-image denoiser; None where no arm makes copies.
        out: folder of the comparison: cells, words, images, comparison.json and tables.
        shots: photos a class; None takes those of 1, 2, 4 and 8 that every class has beside the photos held out.
        seeds: how many, or which. Intervals are over seeds from 4 on, over test images below.
        arms: of "pixels" (logistic regression on raw pixels), "standard", "real-guidance", "da-fusion".
        levels: what classifiers know at the start: "scratch", a bundled name, a transformers folder or a hub name; NAME=FOLDER gives a
            folder a name.
        copies: of each photo.
        alpha: probability that a copy stands in for its photo, or "auto": cross-validation on the shots, 0 among the choices.
        hours: refuse to begin what would take longer by the estimate, and begin no classifier (with its words and copies) that would end
            later; what is left out is missing, and the same call continues.
        making: how copies are made; its `copies` gives way to the argument.
        steps: of the training of a network from scratch.
        size: side in pixels at which classifiers see photos; None takes the model's own, at most 224.
        fit: how other shapes become that square.
        command: what was typed, for the page; None takes it from this process.
        dry_run: print the cost, train nothing.
        progress: print the cost, a line a cell and bars on the standard error stream.
    Returns:
        What was found, with all that is missing; it lies in `out` too. What earlier calls finished there is in it, and named in its notes.
    Raises:
        ConfigError: a setting out of range, or more hours than allowed.
        DataError: too few photos of a class, no labels, or test photos that are all among the photos to train on.
        PlanError: `out` holds another comparison.
    """
    images, test = open_images(images), None if test is None else open_images(test)
    if model is not None:
        check_denoiser(model, "compare")
    chosen = replace(Making() if making is None else making, copies=copies)
    side = min(getattr(model, "size", None) or 64, LARGEST) if size is None else size
    settings = make_settings(
        shots=SHOTS if shots is None else shots, seeds=seeds, arms=arms, levels=levels, steps=steps, alpha=alpha, making=chosen,
        size=side, fit=fit,
    )  # fmt: skip
    check_hours(hours)
    bench = Bench.prepare(images, test, model, settings, Path(out).expanduser(), progress, fewer=shots is None)
    bench.store.check(bench.plan)
    note, settings = notes(progress or dry_run), bench.settings
    if shots is None and settings.shots != SHOTS:
        few = counted(min(bench.pool.counts()), "photo")
        note(f"shots {' '.join(map(str, settings.shots))}: the smallest class has {few} to take from")
    cells = list(settings.cells())
    left = [cell for cell in cells if bench.store.read(cell) is None]
    each: Sequence[float] = ()
    if left:
        note("measuring how fast models and classifiers are here")
        cost = estimate(left, len(cells) - len(left), settings, bench.copies, bench.judge)
        note(cost.summary())
        cost.check(hours)
        each = cost.seconds_each
    if dry_run:
        return bench.conclude(command)
    bench.store.claim(bench.plan)
    _run(bench, left, each, hours, note)
    comparison = bench.conclude(command)
    comparison.save(bench.store.out)
    return comparison


def _run(bench: Bench, cells: Sequence[Cell], each: Sequence[float], hours: float | None, note: Callable[[str], None]) -> None:
    """Every open cell that ends within the hours, but one at least, so that every call comes further.

    One that fails is noted and left out, the rest goes on; where no cell at all is there, its error is raised.
    """
    began, first = time.monotonic(), None
    for place, cell in enumerate(cells, start=1):
        if hours is not None and place > 1 and time.monotonic() - began + each[place - 1] > 3600 * hours:
            note(f"{place} of {len(cells)}  {describe(cell)}: not begun, it would end after the {hours:g} h of --hours")
            note(f"left: {counted(len(cells) - place + 1, 'cell')}; the same command continues")
            break
        if place > 1 and cell.seed != cells[place - 2].seed:
            bench.judge.forget()
        try:
            result = bench.judge.run(cell)
        except (RediffuseError, RuntimeError, MemoryError) as error:
            first = error if first is None else first
            bench.store.fail(cell, f"{type(error).__name__}: {error}")
            note(f"{place} of {len(cells)}  {describe(cell)}: failed, {error}")
            continue
        bench.store.write(result)
        # The estimate knows which cells still wait for words and images; the pace so far knows this machine.
        left = sum(each[place:]) * (time.monotonic() - began) / max(1e-9, sum(each[:place]))
        note(f"{place} of {len(cells)}  {describe(cell)}: {result.accuracy:.1%}" + (f"  about {roughly(left)} left" if left else ""))
    if first is not None and not any(bench.store.read(cell) for cell in bench.settings.cells()):
        raise first


def describe(cell: Cell) -> str:
    """`seed 0, 2 shots, da-fusion, scratch`."""
    level = "" if cell.level == cell.arm else f", {cell.level}"
    return f"seed {cell.seed}, {cell.shots} shot{'' if cell.shots == 1 else 's'}, {cell.arm}{level}"
