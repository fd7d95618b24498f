"""Is DiffAug worth more than noise? CIFAR-10 classifiers with equal views, judged on corrupted test pictures.

    python -m rediffuse.recipes.diffaug_cifar10 --data ../shared/data --hours 2

Shows: accuracy on clean and corrupted test pictures (the 15 corruptions of CIFAR-10-C, made here) of nine ways to train: plain; plain for
as many operations as DiffAug costs, denoiser included; noise alone; a Wiener filter in the denoiser's place; DiffAug; AugMix and
DeepAugment, each with one more clean view or with DiffAug. Arms see the same pictures in the same order, equally many views and steps. The
gain that counts is that of DiffAug over noise alone, and without the noise group. Denoiser and classifiers learn from 45,000 pictures;
choices are made on the 5,000 others and on the 4 corruptions that are not reported. Four views a picture are made once by each of
network, filter and noise, with the same times and noise, and shared by all arms and seeds.
Expected: not measured yet. The same command goes on where the last one stopped, cell by cell, and no cell begins that
would pass --hours. Time: about 27 cells of half an hour on one core with AVX512-BF16; with an accelerator `--net cifar-resnet cifar-vit
--seeds 5 --epochs 30` takes minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rediffuse.errors import RediffuseError
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.recipes.robust.arms import ARMS
from rediffuse.recipes.robust.bench import Bench, cells_of, open_bench, open_store, options, run_cells
from rediffuse.recipes.robust.cells import Judgement
from rediffuse.recipes.robust.table import headline_of, rows_of, too_weak

NAME = "diffaug_cifar10"
COLUMNS = ("net", "arm", "seeds", "clean", "corrupted", "corrupted_5", "without_noise", "gain_corrupted", "gain_without_noise")


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
    headline = headline_of(judgements, labels)
    return write_result(name, headline, rows, seconds, command=given.command, folder=given.out, device=device, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    given = options(NAME, __doc__, ARMS).parse_args(arguments)
    given.command = module_command(f"rediffuse.recipes.{NAME}", sys.argv[1:] if arguments is None else arguments)
    try:
        bench = open_bench(given, ARMS)
        cells = cells_of(given)
        judgements = run_cells(bench, open_store(given, bench), cells, given.hours)
        path = conclude(given, bench, judgements, len(cells) - len(judgements))
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    if path is not None:
        print(f"wrote {path}")
    return 0 if path is not None else 1


if __name__ == "__main__":
    sys.exit(main())
