"""What the DiffAug experiments on CIFAR-10 run on: pictures, denoiser, shared views, corrupted copies; and the loop over their cells."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.denoisers.precision import resolve_device
from rediffuse.errors import ConfigError
from rediffuse.evaluation.corruptions.constants import ALL
from rediffuse.evaluation.corruptions.frost import frost_overlays
from rediffuse.progress import Bar, roughly
from rediffuse.recipes.bundled.common import read_pictures
from rediffuse.recipes.cifar10_split import HELD, read_split
from rediffuse.recipes.robust.arms import PLAIN, PLAIN_FLOPS, SIZE, Arm, equal_flops
from rediffuse.recipes.robust.banks import make_bank
from rediffuse.recipes.robust.cells import TEST, Cell, CellStore, Judgement, judge, train
from rediffuse.recipes.robust.corrupted import make_corrupted
from rediffuse.recipes.robust.nets import NETS, SMALL, SMALL_SHAPE, Budget, budget_of, lower_head, open_net
from rediffuse.recipes.robust.sets import NATURAL, Shift, Split, natural_images, shift_of
from rediffuse.training.objectives import Extra, Objective
from rediffuse.training.pool import Pool

LEAST_CLEAN = 0.85
"""Figures of nets whose plain arm is below it are not to be quoted."""
WHOLE_EPOCHS = 15
"""With fewer, which is a trial, nothing is asked of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Pictures, denoiser and banks that all cells share. natural: None where that set is not there."""

    train: Split
    held: Split
    test: Split
    natural: Shift | None
    classes: tuple[str, ...]
    denoiser: Denoiser
    work: Path
    draws: int
    epochs: float
    device: torch.device
    arms: Mapping[str, Arm]

    def objective(self, cell: Cell) -> Objective:
        """What a cell looks at; a shared bank is made when it is first asked for."""
        arm = self.arms[cell.arm]
        if arm.online is not None:
            return arm.build(arm.online(self.denoiser, cell.seed))
        name = arm.bank
        if name is None:
            return arm.build(None)
        with Bar(unit="views") as bar:
            bar.stage(f"views by {name}", self.draws * len(self.train[0]))
            bank = make_bank(name, self.work / "banks" / f"{name}.bank", self.denoiser, *self.train, self.draws, bar.report)
        return arm.build(Extra(method=bank, draws=self.draws))

    def run(self, cell: Cell) -> Judgement:
        """Train and judge one classifier."""
        classifier = open_net(cell.net, self.classes, cell.seed).to(self.device)
        budget = self.budget(cell, classifier)
        checkpoint = self.work / "cells" / f"{cell.name}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        pool = Pool.build(*self.train, None, [[]] * len(self.train[0]), 0.0)
        objective = self.objective(cell)
        with Bar(unit="steps") as bar:
            bar.stage(f"training {cell.name}", budget.settings.steps)
            diary = train(classifier, pool, objective, budget, cell.seed, checkpoint, bar.report)
        numbers = budget.procedure.numbers(self.device)
        lower_head(classifier)
        right = judge(classifier, *self.test, self.work / "corrupted", ALL, self.natural, numbers)
        held = float((classifier.predict(self.held[0]).argmax(1) == self.held[1]).double().mean())
        classifier.save(self.work / "nets" / cell.name)
        checkpoint.unlink(missing_ok=True)
        facts = {"seconds": diary.seconds, "loss": diary.losses, "views": objective.samples, **asdict(budget.settings)}
        diary.file.unlink(missing_ok=True)
        return Judgement(cell=cell, right=right, held=held, facts=facts)

    @property
    def truth(self) -> dict[str, list[int]]:
        """Labels of the sets that cells are judged by."""
        own = {TEST: self.test[1].tolist()}
        return own if self.natural is None else own | {NATURAL: self.natural.labels.tolist()}

    def budget(self, cell: Cell, classifier: Any) -> Budget:
        found = budget_of(cell.net, self.epochs, len(self.train[0]))
        if cell.arm != PLAIN_FLOPS:
            return found
        return replace(found, settings=equal_flops(found.settings, classifier, self.denoiser, len(self.train[0]), self.draws))


def open_bench(given: argparse.Namespace, arms: Mapping[str, Arm]) -> Bench:
    """Read the pictures, open the denoiser, make the corrupted copies of the test set."""
    folder = given.data / "cifar10"
    train_set, held = read_split(folder, held=given.held)
    test = read_pictures(folder, "test", SIZE)
    natural = natural_images(given.data)
    some = slice(None) if given.pictures is None else slice(given.pictures)
    bench = Bench(
        train=(train_set.images[some], train_set.labels[some]),
        held=(held.images, held.labels),
        test=(test.images[some], test.labels[some]),
        natural=None if natural is None else shift_of(natural, train_set.names),
        classes=train_set.names,
        denoiser=load(given.denoiser, device=given.device),
        work=given.work,
        draws=given.draws,
        epochs=given.epochs,
        device=resolve_device(given.device),
        arms=arms,
    )
    with Bar(unit="corruptions") as bar:
        bar.stage("corrupting the test pictures", len(ALL))
        make_corrupted(bench.work / "corrupted", bench.test[0], ALL, bar.report)
    return bench


def run_cells(bench: Bench, store: CellStore, cells: Sequence[Cell], hours: float | None) -> list[Judgement]:
    """Every cell that is there or fits into the hours, in order."""
    began, slowest, found = time.monotonic(), 0.0, []
    whole = bench.epochs >= WHOLE_EPOCHS
    for cell in cells:
        there = store.read(cell)
        if there is None:
            spent = time.monotonic() - began
            if hours is not None and spent + slowest > 3600 * hours:
                print(f"{cell.name}: left for another call, it would take about {roughly(slowest)}", file=sys.stderr)
                continue
            there = bench.run(cell)
            store.write(there)
            slowest = max(slowest, time.monotonic() - began - spent)
            clean = float(there.right["clean"].mean())
            print(f"{cell.name}: clean {clean:.1%}, held out {there.held:.1%}, {roughly(there.facts['seconds'])}", flush=True)
        found.append(there)
        if whole and cell.arm == PLAIN and there.held < LEAST_CLEAN:
            raise ConfigError(
                f"{cell.name} names {there.held:.1%} of the held-out pictures rightly, and below {LEAST_CLEAN:.0%} no figure is to be "
                "quoted: train longer (--epochs) or another --net, in another --work"
            )
    return found


def open_store(given: argparse.Namespace, bench: Bench) -> CellStore:
    """Where judgements are kept. Raises ConfigError where the folder holds those of another experiment."""
    identity = {name: getattr(given, name) for name in ("draws", "epochs", "pictures", "held")}
    identity["frost"] = frost_overlays(SIZE).digest  # photos where they are installed, else drawn
    identity[NATURAL] = 0 if bench.natural is None else len(bench.natural.labels)
    return CellStore(given.work / "judged", {**identity, "denoiser": bench.denoiser.fingerprint(), SMALL: SMALL_SHAPE})


def cells_of(given: argparse.Namespace) -> list[Cell]:
    """Seed by seed, so that an early end leaves whole seeds."""
    return [Cell(net=net, arm=arm, seed=seed) for net, seeds in nets_of(given) for seed in range(seeds) for arm in given.arms]


def nets_of(given: argparse.Namespace) -> list[tuple[str, int]]:
    """(net, seeds) as they were typed: NET or NET:SEEDS. Raises ConfigError."""
    found = []
    for word in given.net:
        net, _, count = word.partition(":")
        if net not in NETS or not (count or str(given.seeds)).isdigit() or int(count or given.seeds) < 1:
            raise ConfigError(f"--net takes {', '.join(NETS)}, or NET:SEEDS such as {NETS[-1]}:1, got {word!r}")
        found.append((net, int(count or given.seeds)))
    return found


def named(name: str, given: argparse.Namespace) -> str:
    """Of the result: a trial and another net than the recipe's have names of their own, so that nothing is written over."""
    other = "" if nets_of(given)[0][0] == NETS[0] else f"_{nets_of(given)[0][0]}"
    return f"{'' if given.pictures is None else 'reduced_'}{name}{other}"


def options(name: str, text: str | None, arms: Mapping[str, Arm]) -> argparse.ArgumentParser:
    """What every experiment can be told."""
    parser = argparse.ArgumentParser(
        prog=f"python -m rediffuse.recipes.{name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = Path(os.environ.get("REDIFFUSE_DATA", "../shared/data"))
    parser.add_argument(
        "--data", type=Path, default=sets, help="folder of the sets; it holds cifar10, and tiny-imagenet-base for the natural shift"
    )
    parser.add_argument("--denoiser", default="cifar10-32", help="unconditional pixel model that has seen nothing but the 45,000")
    parser.add_argument("--net", nargs="+", metavar="NET[:SEEDS]", default=[NETS[0]], help=f"of {', '.join(NETS)}")
    parser.add_argument("--arms", nargs="+", choices=list(arms), default=list(arms))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=float, default=15.0)
    parser.add_argument("--draws", type=int, default=4, help="views of each picture in a bank")
    parser.add_argument("--pictures", type=int, help="the first so many of training and test pictures; for a trial")
    parser.add_argument("--held", type=int, default=HELD, help="training pictures that choices are made on")
    parser.add_argument("--hours", type=float, help="begin no cell that would take longer")
    parser.add_argument("--work", type=Path, default=Path("runs/robust"), help="folder of banks, corrupted pictures, cells and nets")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the result")
    parser.add_argument("--device", default="auto")
    return parser
