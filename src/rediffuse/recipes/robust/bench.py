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
from rediffuse.errors import ConfigError, PlanError
from rediffuse.evaluation.corruptions.constants import ALL
from rediffuse.evaluation.corruptions.frost import frost_overlays
from rediffuse.evaluation.provenance import commit, hardware
from rediffuse.lock import Lock
from rediffuse.progress import Bar, roughly
from rediffuse.recipes.bundled.common import read_pictures
from rediffuse.recipes.cifar10_split import HELD, read_split
from rediffuse.recipes.robust.arms import PLAIN, PLAIN_FLOPS, SIZE, Arm, equal_flops
from rediffuse.recipes.robust.banks import digest_of, make_bank
from rediffuse.recipes.robust.cells import TEST, Cell, CellStore, Judgement, judge, train
from rediffuse.recipes.robust.corrupted import make_corrupted
from rediffuse.recipes.robust.nets import NETS, NETS_FOLDER, SMALL, SMALL_SHAPE, Budget, budget_of, fold_norms, lower_head, open_net
from rediffuse.recipes.robust.sets import NATURAL, Shift, Split, natural_images, shift_of
from rediffuse.training.objectives import Extra, Objective
from rediffuse.training.pool import Pool

SEEDS, EPOCHS, DRAWS = 3, 15.0, 4
"""Of the recipe; with less of any a result is a reduced one."""
DENOISER = "cifar10-32"
ASKED = {"ensemble_pictures": 500, "dda_pictures": 100}
"""Test pictures for what is asked at test time, where a recipe asks any."""
STORE = (
    "folder of finished cells and of their nets, by default --work; what lies in it is enough for another machine to go on, so one under "
    "version control carries an experiment over machines"
)
LEAST_CLEAN = 0.85
"""Figures of nets whose plain arm is below it are not to be quoted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Pictures, denoiser and banks that all cells share.

    natural: None where that set is not there. gated: whether a net is given up whose plain arm is too weak for any figure. work: of what
    can be made again; store: of finished cells and their nets.
    """

    train: Split
    held: Split
    test: Split
    natural: Shift | None
    classes: tuple[str, ...]
    denoiser: Denoiser
    work: Path
    store: Path
    draws: int
    epochs: float
    gated: bool
    device: torch.device
    arms: Mapping[str, Arm]

    def objective(self, cell: Cell) -> Objective:
        """What a cell looks at; a shared bank is made when it is first asked for."""
        arm = self.arms[cell.arm]
        if arm.online is not None:
            return arm.build(arm.online(self.denoiser, cell.seed))
        if (name := arm.bank) is None:
            return arm.build(None)
        with claimed(self.work / "banks" / f"{name}.lock"), Bar(unit="views") as bar:
            bar.stage(f"views by {name}", self.draws * len(self.train[0]))
            bank = make_bank(name, self.bank_file(name), self.denoiser, *self.train, self.draws, bar.report)
        return arm.build(Extra(method=bank, draws=self.draws))

    def bank_file(self, name: str) -> Path:
        return self.work / "banks" / f"{name}.bank"

    def views_of(self, cell: Cell) -> dict[str, str]:
        """What tells the shared views of a cell from such as were made again elsewhere, once they are there."""
        name = None if self.arms[cell.arm].online is not None else self.arms[cell.arm].bank
        return {} if name is None else {f"views of {name}": digest_of(self.bank_file(name))}

    def run(self, cell: Cell) -> Judgement:
        """Train and judge one classifier."""
        classifier = open_net(cell.net, self.classes, cell.seed).to(self.device)
        budget = self.budget(cell, classifier)
        checkpoint = self.work / "cells" / f"{cell.name}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        pool = Pool.build(*self.train, None, [[]] * len(self.train[0]), 0.0)
        objective = self.objective(cell)
        with Bar(unit="steps") as bar:
            bar.stage(f"training {cell.name}")  # its first count says what an earlier life has done
            diary = train(classifier, pool, objective, budget, cell.seed, checkpoint, bar.report)
        numbers = budget.procedure.numbers(self.device)
        facts = {"seconds": diary.seconds, "loss": diary.losses, "views": objective.samples, **asdict(budget.settings)}
        facts |= {"commit": commit(), "numbers": str(numbers).removeprefix("torch."), "hardware": hardware(str(self.device))}
        facts |= self.views_of(cell)
        lower_head(classifier)
        classifier.model.half()  # what is judged is what is kept, in half the room
        classifier.save(self.store / NETS_FOLDER / cell.name)
        classifier.model.float()
        fold_norms(classifier)
        began = time.monotonic()
        right, held = judge(classifier, self.test, self.held, self.work / corrupted_folder(), ALL, self.natural, numbers)
        facts["judging_seconds"] = round(time.monotonic() - began, 1)
        return Judgement(cell=cell, right=right, held=held, facts=facts)

    def forget(self, cell: Cell) -> None:
        """Remove what a killed training would have gone on from."""
        for ending in (".pt", ".json"):
            (self.work / "cells" / f"{cell.name}{ending}").unlink(missing_ok=True)

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
        store=given.store or given.work,
        draws=given.draws,
        epochs=given.epochs,
        gated=given.pictures is None and not given.weak,
        device=resolve_device(given.device),
        arms=arms,
    )
    with Bar(unit="corruptions") as bar:
        bar.stage("corrupting the test pictures", len(ALL))
        make_corrupted(bench.work / corrupted_folder(), bench.test[0], ALL, bar.report)
    return bench


def run_cells(bench: Bench, store: CellStore, cells: Sequence[Cell], hours: float | None) -> list[Judgement]:
    """Every cell that is there or fits into the hours, by the longest that is finished, in order; none of a net that is too weak.

    Several processes may run the same cells in one --work: each leaves those that another is at.

    Raises ConfigError where all nets are.
    """
    began, slowest = time.monotonic(), 0.0 if hours is None else longest(store, cells)
    found: list[Judgement] = []
    for cell in cells:
        if cell.net in weak_nets(bench, found):
            continue
        there = store.read(cell)
        if there is None:
            spent = time.monotonic() - began
            if hours is not None and spent + slowest > 3600 * hours:
                print(f"{cell.name}: left for another call, it would take about {roughly(slowest)}", file=sys.stderr)
                continue
            there = run_cell(bench, store, cell)
            if there is None:
                continue
            slowest = max(slowest, time.monotonic() - began - spent)
        found.append(there)
    weak = weak_nets(bench, found)
    if weak:
        said = (
            f"plain {', '.join(sorted(weak))} names fewer than {LEAST_CLEAN:.0%} of the held-out pictures rightly, and no figure of it "
            "is to be quoted: train longer (--epochs) in another --work, or say --weak"
        )
        if weak == {cell.net for cell in cells}:
            raise ConfigError(said)
        print(said, file=sys.stderr)
    return found


def run_cell(bench: Bench, store: CellStore, cell: Cell) -> Judgement | None:
    """Train and judge a cell that is not there; None where another process is at it, or at the views that it looks at."""
    try:
        with claimed(bench.work / "cells" / f"{cell.name}.lock"):
            there = store.read(cell)
            if there is not None:
                return there  # another process has just finished it
            there = bench.run(cell)
            store.write(there)
            bench.forget(cell)
    except PlanError as error:
        print(f"{cell.name}: left to another process: {error}", file=sys.stderr)
        return None
    clean = float(there.right["clean"].mean())
    print(f"{cell.name}: clean {clean:.1%}, held out {there.held:.1%}, {roughly(there.facts['seconds'])}", flush=True)
    return there


def claimed(file: Path) -> Lock:
    """The right to make what this lock file is named after. Entering raises PlanError where another process has it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return Lock(file, fix=f"remove {file}")


def longest(store: CellStore, cells: Sequence[Cell]) -> float:
    """Seconds that the longest of the finished cells took, wherever it ran; 0 where none is finished."""
    there = (store.read(cell) for cell in cells)
    return max((run.facts["seconds"] + run.facts.get("judging_seconds", 0.0) for run in there if run is not None), default=0.0)


def weak_nets(bench: Bench, found: Sequence[Judgement]) -> set[str]:
    """Nets that are given up: a plain one of theirs is too often wrong on the pictures that choices are made on."""
    return {run.cell.net for run in found if bench.gated and run.cell.arm == PLAIN and run.held < LEAST_CLEAN}


def missing_of(bench: Bench, cells: Sequence[Cell], found: Sequence[Judgement]) -> list[Cell]:
    """Cells that are still to be run."""
    there, weak = {run.cell for run in found}, weak_nets(bench, found)
    return [cell for cell in cells if cell not in there and cell.net not in weak]


def corrupted_folder() -> str:
    """A place for each kind of frost, so that copies with drawn frost are never taken for others."""
    return f"corrupted-{frost_overlays(SIZE).digest[:8]}"


def open_store(given: argparse.Namespace, bench: Bench) -> CellStore:
    """Where judgements are kept. Raises ConfigError where the folder holds those of another experiment."""
    identity = {name: getattr(given, name) for name in ("draws", "epochs", "pictures", "held")}
    identity["frost"] = frost_overlays(SIZE).digest  # photos where they are installed, else drawn
    identity[NATURAL] = 0 if bench.natural is None else len(bench.natural.labels)
    return CellStore(bench.store / "judged", {**identity, "denoiser": bench.denoiser.fingerprint(), SMALL: SMALL_SHAPE})


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
    """Of the result: what departs from the recipe and another net than its own have names of their own, so that nothing is written over."""
    net, seeds = nets_of(given)[0]
    less = given.arms != given.every_arm or seeds < SEEDS or given.epochs < EPOCHS or given.draws < DRAWS
    less = less or given.pictures is not None or given.held != HELD or given.denoiser != DENOISER
    less = less or any(getattr(given, key, count) < count for key, count in ASKED.items())
    return f"{'reduced_' if less else ''}{name}{'' if net == NETS[0] else f'_{net}'}"


def options(name: str, text: str | None, arms: Mapping[str, Arm]) -> argparse.ArgumentParser:
    """What every experiment can be told."""
    parser = argparse.ArgumentParser(
        prog=f"python -m rediffuse.recipes.{name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = Path(os.environ.get("REDIFFUSE_DATA", "../shared/data"))
    parser.add_argument(
        "--data", type=Path, default=sets, help="folder of the sets; it holds cifar10, and tiny-imagenet-base for the natural shift"
    )
    parser.add_argument("--denoiser", default=DENOISER, help="unconditional pixel model that has seen nothing but the 45,000")
    parser.add_argument("--net", nargs="+", metavar="NET[:SEEDS]", default=[NETS[0]], help=f"of {', '.join(NETS)}")
    parser.add_argument("--arms", nargs="+", choices=list(arms), default=list(arms))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many, at least: further ones that are finished count too")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--draws", type=int, default=DRAWS, help="views of each picture in a bank")
    parser.add_argument("--pictures", type=int, help="the first so many of training and test pictures; for a trial")
    parser.add_argument("--held", type=int, default=HELD, help="training pictures that choices are made on")
    parser.add_argument("--weak", action="store_true", help="go on with a net whose plain arm is below 85 %% clean; it is not to be quoted")
    parser.add_argument("--hours", type=float, help="begin no cell that would take longer")
    parser.add_argument("--work", type=Path, default=Path("runs/robust"), help="folder of banks, corrupted pictures, cells and nets")
    parser.add_argument("--store", type=Path, help=STORE)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the result")
    parser.add_argument("--device", default="auto")
    parser.set_defaults(every_arm=list(arms))
    return parser
