"""Is DiffAug worth more than noise? CIFAR-10 classifiers with equal views, judged on corrupted test pictures.

    python -m rediffuse.recipes.diffaug_cifar10 --data ../shared/data --hours 2

Shows: accuracy on clean and corrupted test pictures (the 15 corruptions of CIFAR-10-C, made here) of nine ways to train: plain; plain for
as many operations as DiffAug's training with the denoiser's calls for all views (2.2 times the steps; that the denoiser was trained, .9
PFLOP to the .6 of both, is not in it); noise alone; a Wiener filter in the denoiser's place; DiffAug; AugMix and
DeepAugment, each with one more clean view or with DiffAug. An arm and what it is held against see the same pictures in the same order,
equally many views and steps, but for the second plain, which takes more steps. *deepaugment* distorts a small network with random weights
at each step, where the published one distorts two trained ones beforehand. The gain that counts is that of DiffAug over noise alone, and
without the noise group; since noise alone hurts there, the smallest of its gains over noise, filter and plain is what this network adds to
them. Denoiser and classifiers learn from 45,000 pictures; choices are made on the 5,000 others and on the 4 corruptions that are not
reported. Four views a picture are made once by each of network, filter and noise, with the same times and noise, and shared by all arms and
seeds. Beside them stands a natural shift: Tiny ImageNet's pictures of CIFAR-10's things. Then some nets are asked at test time through the
DiffAug ensemble and through DDA. The net is smaller than the ResNet-20 of this literature (62 MFLOP a picture for its 82), because 27 of
them must fit a processor; `--net cifar-resnet` is the usual kind. The bundled denoiser takes 1.7 GFLOP a call (.86 G multiply-adds).
Expected: DiffAug over noise alone -.1 points on all corruptions (-.3 to .1), -1.0 at severity 5, +2.0 without the noise group (1.8 to 2.2),
of four of the nine arms (results/reduced_diffaug_cifar10.json); the others are not measured yet. The ensemble adds 1.9 points to DiffAug's
nets at severity 5 (1.4 to 2.4). The same command goes on where the last one stopped, cell by cell, and no cell begins that would pass
--hours by the longest of those finished (the very first begins in any case); a net whose plain arm stays below 85 % is given up (--weak
goes on with it), and no figure of it is quoted. Time: 25 hours of one core with AVX512-BF16 for 27 cells (35 minutes of two views, twice
that of AugMix's four and of equal operations, and 8 to judge), 1.3 for the ensembles. With an accelerator, where nothing is measured yet:
`--net cifar-resnet cifar-vit --weak --seeds 5 --epochs 30`. `--net resnet-14 cifar-vit:1 --weak` adds one seed of another net. `--store
FOLDER` keeps finished cells, their nets (half precision, 1.4 MB each, 38 MB for 27) and what ensembles answered where another machine may
go on from; only the nets of plain, noise and diffaug are asked again later.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from rediffuse.data.splits import chosen
from rediffuse.denoisers.load import load
from rediffuse.errors import RediffuseError
from rediffuse.evaluation.corruptions.frost import frost_overlays
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.evaluation.statistics import Interval
from rediffuse.evaluation.test_time.dda import SMALL_FACTOR, SMALL_GUIDANCE, DDASettings
from rediffuse.evaluation.test_time.sharing import SharedViews
from rediffuse.progress import Bar, counted
from rediffuse.recipes.robust import ensembles
from rediffuse.recipes.robust.arms import ARMS, DIFFAUG, NOISE, PLAIN, PLAIN_FLOPS, SIZE
from rediffuse.recipes.robust.bench import ASKED, Bench, cells_of, missing_of, named, nets_of, open_bench, open_store, options, run_cells
from rediffuse.recipes.robust.cells import Judgement
from rediffuse.recipes.robust.sets import natural_images, test_images
from rediffuse.recipes.robust.table import corruption_rows, gain_rows, headline_of, rows_of, too_weak
from rediffuse.recipes.robust.trained import Trained, conditions_of
from rediffuse.training.procedure import Numbers
from rediffuse.training.settings import TrainSettings

NAME = "diffaug_cifar10"
MEASURED = ("seeds", "clean", "corrupted", "corrupted_5", "without_noise", "natural")
COLUMNS = ("net", "arm", *MEASURED)
GAIN_COLUMNS = ("net", "arm", "over", *MEASURED)
ENSEMBLED = (PLAIN, NOISE, DIFFAUG)
"""Arms whose nets are asked through ensembles too."""


def asked_net(given: argparse.Namespace, judgements: Sequence[Judgement], arms: Sequence[str]) -> tuple[str, list[int]] | None:
    """The first net, and its seeds, of which all of these arms were trained; a net that was given up has none but plain."""
    trained = {(run.cell.net, run.cell.arm, run.cell.seed) for run in judgements}
    for net, _ in nets_of(given):
        seeds = sorted(seed for name, arm, seed in trained if (name, arm) == (net, arms[0])) if arms else []
        if shared := [seed for seed in seeds if all((net, arm, seed) in trained for arm in arms)]:
            return net, shared
    return None


def at_test_time(
    given: argparse.Namespace, bench: Bench, judgements: Sequence[Judgement], weak: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, Interval]]:
    """Rows and quoted figures of the ensembles, on the classifiers of the first net that was trained; nothing is quoted of a weak one."""
    arms = [arm for arm in ENSEMBLED if arm in given.arms]
    rows: list[dict[str, Any]] = []
    headline: dict[str, Interval] = {}
    asked = asked_net(given, judgements, arms)
    if asked is None or not (given.ensemble_pictures or given.dda_pictures):
        return rows, headline
    net, seeds = asked
    trained = Trained.open(bench.store, net, arms, seeds, bench.device, given.dtype)
    denoiser = load(given.denoiser, device=given.device, dtype=given.dtype)
    test, natural, shared = test_images(given.data), natural_images(given.data), SharedViews()
    dda = DDASettings(guidance=given.dda_guidance, factor=given.dda_factor)

    def told(kind: str, count: int) -> ensembles.Told:
        images, shifted = chosen(test, count, 0), None if natural is None else chosen(natural, count, 0)
        asked_for = argparse.Namespace(net=net, images=count, work=bench.work, store=bench.store)
        keep = trained.keep(asked_for, "ensembles", lasting=True)
        place = kind if kind == ensembles.ENSEMBLE else f"{kind}-{dda.guidance:g}-{dda.factor}"
        with Bar(unit="pictures") as bar:
            bar.stage(f"asking by {kind}", 17 * len(images) + len(shifted or ()))
            make = ensembles.made_by(kind, denoiser, dda, shared)
            return ensembles.ask(kind, trained, make, images, shifted, keep / place, bar.report)

    if given.ensemble_pictures:
        found = told(ensembles.ENSEMBLE, given.ensemble_pictures)
        rows += ensembles.rows_of(ensembles.ENSEMBLE, found, trained)
        headline |= {} if net in weak else ensembles.headline_of(ensembles.ENSEMBLE, found, trained, DIFFAUG)
    if given.dda_pictures:
        beside = told(ensembles.ENSEMBLE, given.dda_pictures)
        for kind in (ensembles.DDA_ALONE, ensembles.DDA_BOTH):
            rows += ensembles.rows_of(kind, told(kind, given.dda_pictures), trained, beside)
    return rows, headline


def made_on(judgements: Sequence[Judgement]) -> list[str]:
    """Where and by which code the cells were trained, a line for each kind."""
    kinds: Counter[str] = Counter()
    for run in judgements:
        machine = run.facts["hardware"]
        sets = ", ".join(machine["instruction_sets"])
        kind = f"{machine['processor']} ({sets}), {machine['device']}, torch {machine['torch']}, {run.facts['numbers']}"
        kinds[f"{kind}, commit {run.facts['commit'] or 'unknown'}"] += 1
    return [f"{counted(count, 'cell')} trained on {kind}" for kind, count in kinds.items()]


def unlike(judgements: Sequence[Judgement]) -> list[str]:
    """What cells of one net differ in and should not."""
    found = []
    for net in dict.fromkeys(run.cell.net for run in judgements):
        runs = [run for run in judgements if run.cell.net == net]
        banks = sorted({name for run in runs for name in run.facts if name.startswith("views of ")})
        for name in (*sorted({field.name for field in fields(TrainSettings)} - {"steps"}), "numbers", *banks):
            own = [run for run in runs if name not in banks or ARMS[run.cell.arm].bank == name.removeprefix("views of ")]
            values = dict.fromkeys(str(run.facts.get(name, "not noted")) for run in own)
            if len(values) > 1:
                found.append(f"cells of {net} differ in {name}: {', '.join(values)}")
    return found


def conclude(given: argparse.Namespace, bench: Bench, judgements: Sequence[Judgement], missing: int, hours: float | None) -> Path | None:
    """Print the tables; write the result when no cell is missing. hours: that are left."""
    rows: list[dict[str, Any]] = [{"table": "arms", **row} for row in rows_of(judgements, bench.truth)]
    gains = [{"table": "gains", **row} for row in gain_rows(judgements, bench.truth)]
    print(render_table(rows, COLUMNS), render_table(gains, GAIN_COLUMNS), sep="\n")
    weak = too_weak(rows)
    notes = [f"plain {net} names fewer than 85 % of clean pictures rightly: its figures are not to be quoted, and none is" for net in weak]
    if missing:
        print(f"{missing} cells are missing: the same command goes on. No result was written", file=sys.stderr)
        return None
    if hours is not None and hours <= 0:
        print("every cell is there; the ensembles are left for another call, which writes the result", file=sys.stderr)
        return None
    asked, more = at_test_time(given, bench, judgements, weak)
    for kind in dict.fromkeys(row["table"] for row in asked):
        print(render_table([row for row in asked if row["table"] == kind]))
    rows += gains
    rows += [{"table": "corruptions", **row} for row in corruption_rows(judgements, bench.truth)]
    seconds = sum(run.facts["seconds"] for run in judgements)
    spec = bench.denoiser.spec
    notes.append(f"denoiser {'in memory' if spec is None else spec.name}, {given.draws} views a picture, {given.epochs:g} epochs")
    notes.append("natural: pictures of another make" if bench.natural is not None else "no natural shift: tiny-imagenet-base is not there")
    notes += [*conditions_of(row["seeds"] for row in rows if row["table"] == "arms"), *unlike(judgements), *made_on(judgements)]
    frost = frost_overlays(SIZE)
    notes.append("frost as published" if frost.comparable else "frost is drawn: not comparable with published figures")
    notes.append("noise is that of DiffAug's own law, not the noise that would be best alone")
    if any(run.cell.arm == PLAIN_FLOPS for run in judgements):
        notes.append("plain-flops pays for the views' denoiser calls, not for training the denoiser, which took more operations than both")
    if any(run.cell.arm.startswith("deepaugment") for run in judgements):
        notes.append(
            "deepaugment distorts a small random network; the published one distorts two trained ones, and made its pictures before"
        )
    notes.append("seconds are those of training; in the tables of ensembles natural is a mean over pictures, elsewhere over classes")
    device, headline = str(bench.device), headline_of(judgements, bench.truth) | more
    return write_result(
        named(NAME, given), headline, [*rows, *asked], seconds, command=given.command, folder=given.out, device=device, notes=notes
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(NAME, __doc__, ARMS)
    parser.add_argument(
        "--ensemble-pictures", type=int, default=ASKED["ensemble_pictures"], help="test pictures for the DiffAug ensemble; 0 for none"
    )
    parser.add_argument(
        "--dda-pictures", type=int, default=ASKED["dda_pictures"], help="test pictures for DDA and, beside it, for the ensemble; 0 for none"
    )
    parser.add_argument("--dda-guidance", type=float, default=SMALL_GUIDANCE, help="of DDA, as `dda_guidance` found it best")
    parser.add_argument("--dda-factor", type=int, default=SMALL_FACTOR, help="of DDA's low-pass filter; found likewise")
    parser.add_argument(
        "--dtype", choices=get_args(Numbers), default="auto", help="of what is asked at test time; begun tables go on in theirs alone"
    )
    given = parser.parse_args(arguments)
    given.command = module_command(f"rediffuse.recipes.{NAME}", sys.argv[1:] if arguments is None else arguments)
    try:
        began, cells = time.monotonic(), cells_of(given)
        bench = open_bench(given, ARMS)
        store = open_store(given, bench)
        cells += [cell for cell in store.cells() if cell not in cells and cell.net in dict(nets_of(given)) and cell.arm in given.arms]
        judgements = run_cells(bench, store, cells, given.hours)
        left = None if given.hours is None else given.hours - (time.monotonic() - began) / 3600
        path = conclude(given, bench, judgements, len(missing_of(bench, cells, judgements)), left)
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    if path is not None:
        print(f"wrote {path}")
    return 0 if path is not None else 1


if __name__ == "__main__":
    sys.exit(main())
