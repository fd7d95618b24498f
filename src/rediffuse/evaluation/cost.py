"""What a comparison will cost, from rates measured on this machine, before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from rediffuse.concepts.recipes import find_recipe
from rediffuse.data.splits import few_shot
from rediffuse.errors import ConfigError
from rediffuse.evaluation.arms import Copies
from rediffuse.evaluation.judge import FOLDS, Judge
from rediffuse.evaluation.settings import AUTO_ALPHAS, DA_FUSION, GENERATED, PIXELS, REAL_GUIDANCE, Cell, CompareSettings
from rediffuse.generation.local import Engine, default_batch
from rediffuse.generation.plan import Settings
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
        words: learnings of words, all classes of one together; samples: for them.
        seconds_generate, seconds_learn, seconds_train: by the measured rates.
    """

    cells: int
    done: int
    images: int
    calls: int
    words: int
    samples: int
    seconds_generate: float
    seconds_learn: float
    seconds_train: float

    @property
    def seconds(self) -> float:
        return self.seconds_generate + self.seconds_learn + self.seconds_train

    def summary(self) -> str:
        """The lines that are printed before a comparison."""
        there = f" ({self.done:,} are there already)" if self.done else ""
        lines = [f"{self.cells:,} classifiers to train{there}: about {minutes(self.seconds_train)}"]
        if self.words:
            lines.append(f"{self.words:,} learnings of words, {self.samples:,} samples: about {minutes(self.seconds_learn)}")
        if self.images:
            lines.append(f"{self.images:,} images in {self.calls:,} model calls of one image: about {minutes(self.seconds_generate)}")
        lines.append(f"about {minutes(self.seconds)} in all")
        return "\n".join(lines)

    def check(self, hours: float | None) -> None:
        """Raise ConfigError where it would take longer than allowed."""
        if hours is not None and self.seconds > 3600 * hours:
            raise ConfigError(
                f"the comparison would take about {minutes(self.seconds)} here, --hours allows {hours:g} h; "
                "ask for fewer shots, seeds, copies or levels, or allow more hours. The same folder goes on with what it has"
            )


def minutes(seconds: float) -> str:
    """`40 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(cells: Sequence[Cell], done: int, settings: CompareSettings, copies: Copies, judge: Judge) -> Cost:
    """The cost of these open cells. Measures for a few seconds."""
    runs = open_runs(cells, settings, copies)
    classes, making = len(copies.pool.classes), settings.making
    images = sum(shots * classes * making.copies for _, shots, _ in runs)
    calls = round(sum(shots * classes * making.copies * calls_per_image(arm, copies) for arm, shots, _ in runs))
    words = sum(arm == DA_FUSION for arm, _, _ in runs)
    samples = words * classes * find_recipe(making.recipe).samples_per_class
    rate = image_steps_per_second(copies, settings) if runs else 1.0
    return Cost(
        cells=len(cells),
        done=done,
        images=images,
        calls=calls,
        words=words,
        samples=samples,
        seconds_generate=calls / rate,
        # A sample costs a forward call and half a backward; an image step two forward calls, because of guidance: about the same.
        seconds_learn=samples / rate,
        seconds_train=sum(training_seconds(cells, settings, judge).values()),
    )


def open_runs(cells: Sequence[Cell], settings: CompareSettings, copies: Copies) -> list[tuple[str, int, int]]:
    """(arm, shots, seed) of each run of generation that these cells need and that is not complete."""
    most = max(settings.shots)
    wanted = dict.fromkeys(
        (cell.arm, most if cell.arm == REAL_GUIDANCE else cell.shots, cell.seed) for cell in cells if cell.arm in GENERATED
    )
    return [key for key in wanted if not copies.complete(*key)]


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


def training_seconds(cells: Sequence[Cell], settings: CompareSettings, judge: Judge) -> dict[str, float]:
    """Seconds of training and judging for each level, from a few timed steps; making copies is not in it."""
    found: dict[str, float] = {}
    for level in dict.fromkeys(cell.level for cell in cells):
        own = [cell for cell in cells if cell.level == level]
        trainings = sum(1 + extra_trainings(cell, settings) for cell in own)
        if level == PIXELS:
            found[level] = 0.3 * trainings
        elif dict(settings.levels)[level] == SCRATCH:
            found[level] = trainings * settings.whole.steps * _seconds_a_step(settings, judge)
        else:
            found[level] = trainings * _seconds_a_head(settings, judge, level) + _seconds_of_features(own, settings, judge, level)
    return found


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
    made = {
        (cell.arm, max(settings.shots) if cell.arm == REAL_GUIDANCE else cell.shots, cell.seed) for cell in cells if cell.arm in GENERATED
    }
    images = len(judge.test) + sum(shots * classes for _, shots in real) + sum(shots * classes * copies for _, shots, _ in made)
    return each * images
