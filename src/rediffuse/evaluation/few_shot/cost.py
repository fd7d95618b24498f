"""What a comparison will cost, from rates measured on this machine, before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from rediffuse.concepts.pricing import WordCost, price_words
from rediffuse.concepts.recipes import find_recipe
from rediffuse.data.splits import few_shot
from rediffuse.errors import ConfigError
from rediffuse.evaluation.few_shot.arms import Copies
from rediffuse.evaluation.few_shot.judge import FOLDS, Judge
from rediffuse.evaluation.few_shot.settings import AUTO_ALPHAS, DA_FUSION, GENERATED, PIXELS, REAL_GUIDANCE, Cell, CompareSettings
from rediffuse.generation.local import Engine, default_batch
from rediffuse.generation.plan import Settings
from rediffuse.progress import roughly
from rediffuse.sampling.solvers import trajectory
from rediffuse.training.augment import StandardViews
from rediffuse.training.backbones import SCRATCH, open_backbone
from rediffuse.training.linear import features, fit_head
from rediffuse.training.loop import fit_network
from rediffuse.training.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is still to be done.

    Attributes:
        cells: classifiers to be trained; done: there already.
        images: to be made; calls: image steps for them, guidance counted once.
        words: learnings of words, all classes of one together; samples: for them; looks: calls that choosing their starts takes.
        seconds_generate, seconds_learn, seconds_train: by the measured rates.
        seconds_each: all of these, cell by cell; a cell that is the first to need words and images pays for them.
    """

    cells: int
    done: int
    images: int
    calls: int
    words: int
    samples: int
    looks: int
    seconds_generate: float
    seconds_learn: float
    seconds_train: float
    seconds_each: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        return self.seconds_generate + self.seconds_learn + self.seconds_train

    def summary(self) -> str:
        """The lines that are printed before a comparison."""
        there = f" ({self.done:,} are there already)" if self.done else ""
        lines = [f"{self.cells:,} classifiers to train{there}: about {roughly(self.seconds_train)}"]
        if self.words:
            search = f" and {self.looks:,} looks for where to start" if self.looks else ""
            lines.append(f"{self.words:,} learnings of words, {self.samples:,} samples{search}: about {roughly(self.seconds_learn)}")
        if self.images:
            lines.append(f"{self.images:,} images in {self.calls:,} model calls of one image: about {roughly(self.seconds_generate)}")
        lines.append(f"about {roughly(self.seconds)} in all")
        return "\n".join(lines)

    def check(self, hours: float | None) -> None:
        """Raise ConfigError where it would take longer than allowed."""
        if hours is not None and self.seconds > 3600 * hours:
            raise ConfigError(
                f"the comparison would take about {roughly(self.seconds)} here, --hours allows {hours:g} h; "
                "ask for fewer shots, seeds, copies or levels, or allow more hours. The same folder goes on with what it has"
            )


def estimate(cells: Sequence[Cell], done: int, settings: CompareSettings, copies: Copies, judge: Judge) -> Cost:
    """The cost of these open cells. Measures for a few seconds."""
    runs = open_runs(cells, settings, copies)
    classes, making = len(copies.pool.classes), settings.making
    images = {run: run[1] * classes * making.copies for run in runs}
    calls = {run: round(count * calls_per_image(run[0], copies)) for run, count in images.items()}
    learnings = [run for run in runs if run[0] == DA_FUSION]
    each = price_words(copies.model, find_recipe(making.recipe), classes) if learnings else WordCost(words=0, samples=0, looks=0)
    rate = image_steps_per_second(copies, settings) if runs else 1.0
    seconds = training_seconds(cells, settings, judge)
    trained = sum(seconds)
    for run in runs:  # the first cell that needs a run pays for it
        payer = next(place for place, cell in enumerate(cells) if run_of(cell, settings) == run)
        seconds[payer] += (calls[run] + (each.image_steps if run in learnings else 0)) / rate
    return Cost(
        cells=len(cells),
        done=done,
        images=sum(images.values()),
        calls=sum(calls.values()),
        words=len(learnings),
        samples=len(learnings) * each.samples,
        looks=len(learnings) * each.looks,
        seconds_generate=sum(calls.values()) / rate,
        seconds_learn=len(learnings) * each.image_steps / rate,
        seconds_train=trained,
        seconds_each=tuple(seconds),
    )


def run_of(cell: Cell, settings: CompareSettings) -> tuple[str, int, int] | None:
    """(arm, shots, seed) of the run of generation that a cell needs, if any."""
    if cell.arm not in GENERATED:
        return None
    return (cell.arm, max(settings.shots) if cell.arm == REAL_GUIDANCE else cell.shots, cell.seed)


def open_runs(cells: Sequence[Cell], settings: CompareSettings, copies: Copies) -> list[tuple[str, int, int]]:
    """The runs of generation that these cells need and that are not complete, in the order of the cells."""
    wanted = dict.fromkeys(run for cell in cells if (run := run_of(cell, settings)) is not None)
    return [run for run in wanted if not copies.complete(*run)]


def calls_per_image(arm: str, copies: Copies) -> float:
    """Image steps of one copy, mean over the strengths."""
    making, schedule = copies.settings.making, copies.model.schedule
    strengths = (making.guidance_strength,) if arm == REAL_GUIDANCE else making.strengths
    return sum(len(trajectory(schedule, making.solver, making.steps, strength)) for strength in strengths) / len(strengths)


def image_steps_per_second(copies: Copies, settings: CompareSettings) -> float:
    """Measured on a short call of the batch that generation will use."""
    photos, method = few_shot(copies.pool, 1, settings.seeds[0]), copies.real_guidance()
    side = copies.model.size or settings.size
    engine = Engine(photos, method, Settings(side=side, fit=settings.fit))
    return engine.rate(settings.making.batch or default_batch(copies.model, side))


def training_seconds(cells: Sequence[Cell], settings: CompareSettings, judge: Judge) -> list[float]:
    """Seconds of training and judging of each cell, from a few timed steps; making copies is not in it."""
    once: dict[str, float] = {}  # of one training at a level
    shared: dict[str, float] = {}  # of what a level's cells share, for each of them
    for level in dict.fromkeys(cell.level for cell in cells):
        own = [cell for cell in cells if cell.level == level]
        shared[level] = 0.0
        if level == PIXELS:
            once[level] = 0.3
        elif dict(settings.levels)[level] == SCRATCH:
            once[level] = settings.whole.steps * _seconds_a_step(settings, judge)
        else:
            once[level] = _seconds_a_head(settings, judge, level)
            shared[level] = _seconds_of_features(own, settings, judge, level) / len(own)
    return [(1 + extra_trainings(cell, settings)) * once[cell.level] + shared[cell.level] for cell in cells]


def extra_trainings(cell: Cell, settings: CompareSettings) -> int:
    """Trainings that choosing alpha adds to a cell."""
    chosen = settings.alpha == "auto" and cell.arm in GENERATED and cell.shots > 1
    return len(AUTO_ALPHAS) * min(FOLDS, cell.shots) if chosen else 0


def _seconds_a_step(settings: CompareSettings, judge: Judge) -> float:
    count = len(judge.pool.classes)
    pixels = torch.zeros(count, 3, settings.size, settings.size, dtype=torch.uint8)
    pool = Pool.build(pixels, torch.arange(count), None, [()] * count, 0.0)
    start = open_backbone(SCRATCH, judge.pool.classes, size=settings.size).to(judge.device)
    stamps: list[float] = []
    fit_network(
        start,
        pool,
        settings=replace(settings.whole, steps=4),
        views=StandardViews(),
        progress=lambda *_: stamps.append(time.perf_counter()),
    )
    return min(late - early for early, late in pairwise(stamps))


def _seconds_a_head(settings: CompareSettings, judge: Judge, level: str) -> float:
    count, bank = len(judge.pool.classes), judge.features(level)
    items = torch.rand(count, bank.views, bank.classifier.head.in_features, generator=torch.Generator().manual_seed(0))
    pool = Pool.build(items, torch.arange(count), None, [()] * count, 0.0)
    began = time.perf_counter()
    fit_head(pool, count, settings=replace(settings.linear, steps=20))
    return (time.perf_counter() - began) * settings.linear.steps / 20


def _seconds_of_features(cells: Sequence[Cell], settings: CompareSettings, judge: Judge, level: str) -> float:
    bank = judge.features(level)
    pictures = torch.zeros(16, 3, settings.size, settings.size, dtype=torch.uint8)
    features(bank.classifier, pictures[:1], bank.flips)
    began = time.perf_counter()
    features(bank.classifier, pictures, bank.flips)
    each = (time.perf_counter() - began) / len(pictures)
    classes, copies = len(judge.pool.classes), settings.making.copies
    real = {(cell.seed, max(settings.shots)) for cell in cells}
    made = {run for cell in cells if (run := run_of(cell, settings)) is not None}
    images = len(judge.test) + sum(shots * classes for _, shots in real) + sum(shots * classes * copies for _, shots, _ in made)
    return each * images
