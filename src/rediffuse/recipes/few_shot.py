"""What the comparisons on real image sets share: the three levels, the budget, the options; each recipe sets what differs.

Shots 1 2 4 8, four seeds, ten copies a photo; arms standard, Real Guidance and DA-Fusion; what the classifier knows at the start: nothing
(`scratch`), features of 40 other classes (`forty`, made by `rediffuse.recipes.forty`) or of 150 (`resnet-64`, bundled). The test split of a
set judges and chooses nothing. The same command goes on where a killed one stopped; a result is written only when no cell is missing, and
as `compare_NAME` only when nothing that decides its figures was asked for otherwise: else it is `reduced_compare_NAME`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rediffuse.data.open import open_images
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.load import load
from rediffuse.errors import ModelError, RediffuseError
from rediffuse.evaluation.few_shot.compare import compare
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.settings import DA_FUSION, REAL_GUIDANCE, STANDARD, Making
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import render_headline, save_result
from rediffuse.recipes.asked import departures, named, notes_of

SHOTS = (1, 2, 4, 8)
SEEDS = 4
DECIDING = ("shots", "copies", "steps", "model", "features")
"""Options that decide what a comparison finds, beside the seeds."""
ARMS = (STANDARD, REAL_GUIDANCE, DA_FUSION)


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """One comparison.

    Args:
        name: of the result, behind `compare_`; also the module's.
        folder: of the set, in the folder of all sets: parquet shards with the splits `train` and `test`.
        test: name of the split that judges.
        flips: whether a mirrored picture keeps its label.
        making: how copies are made; one choice for all sets (`rediffuse.recipes.choose_making`).
        notes: limits that belong to the figures.
    """

    name: str
    folder: str
    test: str = "test"
    flips: bool = True
    making: Making = field(default_factory=Making)
    notes: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return f"rediffuse.recipes.compare_{self.name}"

    def open(self, data: Path) -> tuple[ImageSet, ImageSet]:
        """(photos that shots are taken from, photos that judge)."""
        where = data / self.folder
        return open_images(where, split="train", flips=self.flips), open_images(where, split=self.test, flips=self.flips)


def run(recipe: FewShot, text: str | None, arguments: Sequence[str] | None = None) -> int:
    """The command of a recipe: compare, and write `results/compare_NAME.json` (or that of a reduced run) when every cell is there.

    Args:
        recipe: what differs.
        text: the recipe's docstring, for --help.
        arguments: as typed; None takes them from this process.
    Returns:
        0; 1 where cells are missing; 2 for something that the user can mend.
    """
    parser = options(recipe, text)
    given = parser.parse_args(arguments)
    command = module_command(recipe.module, sys.argv[1:] if arguments is None else arguments)
    try:
        comparison = run_comparison(recipe, given, command)
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    if given.dry_run:
        return 0
    missing = comparison.missing()
    if missing:
        reasons = "; ".join(sorted(set(comparison.failures.values()))) or "not made yet"
        print(f"{len(missing)} cells are missing ({reasons}): the same command goes on. No result was written", file=sys.stderr)
        return 1
    departed = departures(given, parser, DECIDING, ("seeds",))
    print(f"wrote {conclude(comparison, recipe, given.out, departed)}")
    return 0


def run_comparison(recipe: FewShot, given: argparse.Namespace, command: str) -> Comparison:
    """Compare as the options say."""
    photos, test = recipe.open(given.data)
    forty = given.forty.expanduser()
    if not (forty / "config.json").is_file():
        raise ModelError(f"no features of 40 classes at {forty}; make them: python -m rediffuse.recipes.forty --out {forty}")
    return compare(
        photos,
        test,
        load(given.model, device=given.device, dtype=given.dtype),
        out=given.work or Path("runs") / f"compare_{recipe.name}",
        shots=given.shots,
        seeds=given.seeds,
        arms=ARMS,
        levels=("scratch", f"forty={forty}", f"resnet-64={given.features}"),
        copies=given.copies,
        hours=given.hours,
        making=recipe.making,
        steps=given.steps,
        command=command,
        dry_run=given.dry_run,
    )


def conclude(comparison: Comparison, recipe: FewShot, out: Path, departed: Sequence[str] = ()) -> Path:
    """Write the result and print its headline. One that departs from the recipe has a name of its own and says in what."""
    result = comparison.result(named(f"compare_{recipe.name}", departed))
    notes = dict.fromkeys((*notes_of(departed), *result.notes, *recipe.notes))
    result = replace(result, notes=tuple(notes))
    print("\n".join([*result.notes, render_headline(result)]))
    return save_result(result, out)


def options(recipe: FewShot, text: str | None) -> argparse.ArgumentParser:
    """What every comparison can be told."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {recipe.module}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = Path(os.environ.get("REDIFFUSE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=sets, help=f"folder of the sets; it holds {recipe.folder}")
    parser.add_argument("--forty", type=Path, default=Path("runs/forty"), help="folder that rediffuse.recipes.forty made")
    parser.add_argument("--features", default="resnet-64", help="bundled name, or transformers folder, of the level resnet-64")
    parser.add_argument("--model", default="tiny-imagenet-64", help="text-to-image model")
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS), help="photos a class")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--copies", type=int, default=recipe.making.copies, help="of each photo")
    parser.add_argument("--steps", type=int, help="of the training from scratch")
    parser.add_argument("--hours", type=float, help="begin nothing that would take longer, and no classifier that would end later")
    parser.add_argument("--dry-run", action="store_true", help="print the cost and stop")
    parser.add_argument("--work", type=Path, help=f"folder of cells, words and images; default runs/compare_{recipe.name}")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the result")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    return parser
