"""Is DiffAug worth more than noise? CIFAR-10 classifiers with equal views, judged on corrupted test pictures.

    python -m rediffuse.recipes.diffaug_cifar10 --data ../shared/data --hours 2

Shows: accuracy on clean and corrupted test pictures (the 15 corruptions of CIFAR-10-C, made here) of nine ways to train: plain; plain for
as many operations as DiffAug costs, denoiser included; noise alone; a Wiener filter in the denoiser's place; DiffAug; AugMix and
DeepAugment, each with one more clean view or with DiffAug. Arms see the same pictures in the same order, equally many views and steps. The
gain that counts is that of DiffAug over noise alone, and without the noise group. Denoiser and classifiers learn from 45,000 pictures;
choices are made on the 5,000 others and on the 4 corruptions that are not reported. Four views a picture are made once by each of
network, filter and noise, with the same times and noise, and shared by all arms and seeds.
Expected: see results/diffaug_cifar10.json. The same command goes on where the last one stopped, cell by cell, and no cell begins that
would pass --hours. Time: about 27 cells of half an hour on one core with AVX512-BF16; with an accelerator `--net cifar-resnet cifar-vit
--seeds 5 --epochs 30` takes minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.denoisers.precision import resolve_device
from rediffuse.errors import RediffuseError
from rediffuse.evaluation.corruptions.constants import ALL
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.progress import Bar, roughly
from rediffuse.recipes.bundled.common import read_pictures
from rediffuse.recipes.cifar10_split import HELD, read_split
from rediffuse.recipes.robust.arms import ARMS, PLAIN_FLOPS, equal_flops, objective_of
from rediffuse.recipes.robust.banks import make_bank
from rediffuse.recipes.robust.cells import Cell, CellStore, Judgement, judge, train
from rediffuse.recipes.robust.corrupted import make_corrupted
from rediffuse.recipes.robust.nets import NETS, Budget, budget_of, open_net
from rediffuse.recipes.robust.table import headline_of, rows_of, too_weak
from rediffuse.training.objectives import Objective
from rediffuse.training.pool import Pool

NAME = "diffaug_cifar10"
COLUMNS = ("net", "arm", "seeds", "clean", "corrupted", "corrupted_5", "without_noise", "gain_corrupted", "gain_without_noise")


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Pictures, denoiser and banks that all cells share. train and held: (images (N, 3, 32, 32) uint8, labels (N,)); test likewise."""

    train: tuple[Tensor, Tensor]
    held: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: tuple[str, ...]
    denoiser: Denoiser
    work: Path
    draws: int
    epochs: float
    device: torch.device

    def objective(self, arm: str) -> Objective:
        """What an arm looks at; its bank is made at the first call."""
        name = ARMS[arm].bank
        if name is None:
            return objective_of(ARMS[arm], None, self.draws)
        with Bar(unit="views") as bar:
            bar.stage(f"views by {name}", self.draws * len(self.train[0]))
            bank = make_bank(name, self.work / "banks" / f"{name}.bank", self.denoiser, *self.train, self.draws, bar.report)
        return objective_of(ARMS[arm], bank, self.draws)

    def run(self, cell: Cell) -> Judgement:
        """Train and judge one classifier."""
        classifier = open_net(cell.net, self.classes, cell.seed).to(self.device)
        budget = self.budget(cell, classifier)
        checkpoint = self.work / "cells" / f"{cell.name}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        pool = Pool.build(*self.train, None, [[]] * len(self.train[0]), 0.0)
        objective = self.objective(cell.arm)
        with Bar(unit="steps") as bar:
            bar.stage(f"training {cell.name}", budget.settings.steps)
            seconds = train(classifier, pool, objective, budget, cell.seed, checkpoint, bar.report)
        right = judge(classifier, *self.test, self.work / "corrupted", ALL)
        held = float((classifier.predict(self.held[0]).argmax(1) == self.held[1]).double().mean())
        classifier.save(self.work / "nets" / cell.name)
        checkpoint.unlink(missing_ok=True)
        facts = {"seconds": seconds, "views": objective.samples, **asdict(budget.settings)}
        return Judgement(cell=cell, right=right, held=held, facts=facts)

    def budget(self, cell: Cell, classifier: Any) -> Budget:
        found = budget_of(cell.net, self.epochs, len(self.train[0]))
        if cell.arm != PLAIN_FLOPS:
            return found
        return replace(found, settings=equal_flops(found.settings, classifier, self.denoiser, len(self.train[0]), self.draws))


def open_bench(given: argparse.Namespace) -> Bench:
    """Read the pictures, open the denoiser, make the corrupted copies of the test set."""
    folder = given.data / "cifar10"
    train_set, held = read_split(folder, held=given.held)
    test = read_pictures(folder, "test", 32)
    some = slice(None) if given.pictures is None else slice(given.pictures)
    bench = Bench(
        train=(train_set.images[some], train_set.labels[some]),
        held=(held.images, held.labels),
        test=(test.images[some], test.labels[some]),
        classes=train_set.names,
        denoiser=load(given.denoiser, device=given.device),
        work=given.work,
        draws=given.draws,
        epochs=given.epochs,
        device=resolve_device(given.device),
    )
    with Bar(unit="corruptions") as bar:
        bar.stage("corrupting the test pictures", len(ALL))
        make_corrupted(bench.work / "corrupted", bench.test[0], ALL, bar.report)
    return bench


def run_cells(bench: Bench, store: CellStore, cells: Sequence[Cell], hours: float | None) -> list[Judgement]:
    """Every cell that is there or fits into the hours, in order."""
    began, slowest, found = time.monotonic(), 0.0, []
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
    return found


def conclude(given: argparse.Namespace, bench: Bench, judgements: Sequence[Judgement], missing: int) -> Path | None:
    """Print the table; write the result when no cell is missing and nothing was asked for otherwise than in the recipe."""
    labels = bench.test[1].tolist()
    rows = rows_of(judgements, labels)
    print(
        render_table(
            rows, ["net", "arm", "seeds", "clean", "corrupted", "corrupted_5", "without_noise", "gain_corrupted", "gain_without_noise"]
        )
    )
    weak = too_weak(rows)
    notes = [f"plain {net} names fewer than 85 % of clean pictures rightly: its figures are not to be quoted" for net in weak]
    if missing:
        print(f"{missing} cells are missing: the same command goes on. No result was written", file=sys.stderr)
        return None
    name = NAME if given.pictures is None else f"reduced_{NAME}"
    seconds = sum(run.facts["seconds"] for run in judgements)
    spec = bench.denoiser.spec
    notes.append(f"denoiser {'in memory' if spec is None else spec.name}, {given.draws} views a picture, {given.epochs:g} epochs")
    device = str(bench.device)
    return write_result(name, headline_of(rows), rows, seconds, command=given.command, folder=given.out, device=device, notes=notes)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m rediffuse.recipes.{NAME}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = Path(os.environ.get("REDIFFUSE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=sets, help="folder of the sets; it holds cifar10")
    parser.add_argument("--denoiser", default="cifar10-32", help="unconditional pixel model that has seen nothing but the 45,000")
    parser.add_argument("--net", nargs="+", choices=NETS, default=[NETS[0]])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=float, default=15.0)
    parser.add_argument("--draws", type=int, default=4, help="views of each picture in a bank")
    parser.add_argument("--pictures", type=int, help="the first so many of training and test pictures; for a trial")
    parser.add_argument("--held", type=int, default=HELD, help="training pictures that choices are made on")
    parser.add_argument("--hours", type=float, help="begin no cell that would take longer")
    parser.add_argument("--work", type=Path, default=Path("runs") / NAME, help="folder of banks, corrupted pictures, cells and nets")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the result")
    parser.add_argument("--device", default="auto")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = options().parse_args(arguments)
    given.command = module_command(f"rediffuse.recipes.{NAME}", sys.argv[1:] if arguments is None else arguments)
    try:
        bench = open_bench(given)
        identity = {"denoiser": bench.denoiser.fingerprint(), "draws": given.draws, "epochs": given.epochs, "pictures": given.pictures, "held": given.held}
        store = CellStore(given.work / "judged", identity)
        cells = [Cell(net=net, arm=arm, seed=seed) for net in given.net for seed in range(given.seeds) for arm in given.arms]
        judgements = run_cells(bench, store, cells, given.hours)
        path = conclude(given, bench, judgements, len(cells) - len(judgements))
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    if path is not None:
        print(f"wrote {path}")
    return 0 if path is not None else 1


if __name__ == "__main__":
    sys.exit(main())
