"""How copies are made: chosen once, on training photos that no comparison's test split holds, for both methods alike.

    python -m rediffuse.recipes.choose_making --data DATA --candidates default guidance-2 guidance-7.5 gentle --hours 4

Shows: accuracy of classifiers trained with copies of each kind, as a difference from the default's, for Real Guidance and DA-Fusion. The
training split of each set is cut in two: shots come from one half, the other judges; seeds are others than those of the comparisons. The
sets are flowers17, eurosat and tiny_imagenet_novel; known20 chooses nothing here (`learning_budget` settled on it what a word costs).
Intervals are over seeds: sets, methods, levels and shots are averaged within a seed first. The best candidate's gain is that of the winner
among all, on the figures that it won by: optimistic. With `published-solver` among the candidates it also says whether the default solver
is worth as much as 50 steps of PNDM (paired interval within 1 point), without which its speed is not quoted.
Expected: of all this one part was run, EuroSAT and Flowers17 with 4 copies (results/ablation_making.json): the default solver less the
published one is +.1 points, -1.7 to +1.9, so that four seeds of two sets show no difference, and that it is less than two points, not one.
Time and hardware: 15,000 images a candidate, 50 minutes each on 2 cores with AVX512-BF16, 2.5 hours the published solver (estimate); the
part that was run took 2 hours 19 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rediffuse.data.splits import holdout
from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.errors import ConfigError, DataError, RediffuseError
from rediffuse.evaluation.few_shot.compare import compare
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.generator import limits_of
from rediffuse.evaluation.few_shot.settings import DA_FUSION, REAL_GUIDANCE, Making
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.evaluation.statistics import MIN_SEEDS, Interval, paired_t_interval
from rediffuse.recipes import asked, compare_eurosat, compare_flowers17, compare_tiny_imagenet_novel
from rediffuse.recipes.few_shot import FewShot

SETS: Mapping[str, FewShot] = {
    module.RECIPE.name: module.RECIPE for module in (compare_eurosat, compare_flowers17, compare_tiny_imagenet_novel)
}
DEFAULT, PUBLISHED = "default", "published-solver"
CANDIDATES: Mapping[str, Making] = {
    DEFAULT: Making(),
    "guidance-2": Making(guidance_scale=2.0),
    "guidance-7.5": Making(guidance_scale=7.5),
    "gentle": Making(strengths=(0.1, 0.2, 0.3, 0.4), guidance_strength=0.25),
    PUBLISHED: Making(solver="pndm", steps=50),
}
ARMS = (REAL_GUIDANCE, DA_FUSION)
FIRST_SEED = 100
DECIDING = ("sets", "candidates", "model", "levels", "shots", "copies", "steps")
"""Options that decide what is found, beside the seeds."""
EQUIVALENT = 0.01

Units = dict[str, dict[int, float]]
"""Arm -> seed -> accuracy, mean over sets, and over levels and shots within a set."""


def units_of(comparisons: Mapping[str, Comparison]) -> Units:
    """The accuracies of one candidate, from its comparison on each set. Raises DataError where a cell is missing."""
    shares: dict[str, dict[int, list[float]]] = {arm: {} for arm in ARMS}
    for name, comparison in comparisons.items():
        if comparison.missing():
            raise DataError(f"{len(comparison.missing())} cells of {name} are missing; the same command goes on")
        for arm in ARMS:
            for seed in comparison.seeds:
                own = [result.accuracy for result in comparison.results if result.cell.arm == arm and result.cell.seed == seed]
                shares[arm].setdefault(seed, []).append(fmean(own))
    return {arm: {seed: fmean(own) for seed, own in found.items()} for arm, found in shares.items()}


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """Paired over seeds."""
    return paired_t_interval(list(ours.values()), [theirs[seed] for seed in ours])


def both(units: Units) -> dict[int, float]:
    """Seed -> accuracy, mean over the arms: they share photos and noise within a seed, so they are no runs of their own."""
    return {seed: fmean(units[arm][seed] for arm in ARMS) for seed in units[ARMS[0]]}


def best_of(units: Mapping[str, Units]) -> str:
    """The candidate of the highest mean; the first of equal ones, so the default where it is among them."""
    return max(units, key=lambda name: fmean(both(units[name]).values()))


def table(units: Mapping[str, Units]) -> list[dict[str, Any]]:
    """A row for each candidate and arm: mean accuracy, and how far it is from the default's."""
    rows = []
    for name, found in units.items():
        for arm in ARMS:
            row: dict[str, Any] = {"candidate": name, "arm": arm, "accuracy": fmean(found[arm].values())}
            if name != DEFAULT:
                gap = difference(found[arm], units[DEFAULT][arm])
                row |= {"minus_default": gap.value, "low": gap.low, "high": gap.high}
            rows.append(row)
    return rows


def headline(units: Mapping[str, Units]) -> dict[str, Interval | float]:
    """The best candidate's gain over the default, both arms together; and whether the default solver is worth the published one."""
    best = best_of(units)
    gain = Interval(value=0.0) if best == DEFAULT else difference(both(units[best]), both(units[DEFAULT]))
    found: dict[str, Interval | float] = {"best_gain": gain}
    if PUBLISHED in units:
        found["default_minus_published_solver"] = difference(units[DEFAULT][DA_FUSION], units[PUBLISHED][DA_FUSION])
    return found


def notes_of(units: Mapping[str, Units], figures: Mapping[str, Interval | float]) -> list[str]:
    notes = [f"Best of {', '.join(units)}: {best_of(units)}."]
    if len(units) > 1:
        notes.append(f"Chosen among {len(units)} by these very figures: the best one's gain is optimistic.")
    seeds = len(units[DEFAULT][DA_FUSION])
    if seeds < MIN_SEEDS:
        notes.append(f"{seeds} seed{'' if seeds == 1 else 's'}: too few for an interval to say much.")
    gap = figures.get("default_minus_published_solver")
    if isinstance(gap, Interval) and gap.low is not None and gap.high is not None:
        within = gap.low > -EQUIVALENT and gap.high < EQUIVALENT
        notes.append(f"The default solver is {'' if within else 'not '}shown to be worth as much as the published one, within 1 point.")
    return notes


def search(given: argparse.Namespace, model: Denoiser) -> tuple[dict[str, Units], float]:
    """Compare every candidate on every set; parts that are there are read. Returns (accuracies, seconds of all work in all calls)."""
    unknown = [name for name in given.candidates if name not in CANDIDATES]
    if unknown:
        raise ConfigError(f"no candidate {unknown[0]!r}; there are {', '.join(CANDIDATES)}")
    ends = None if given.hours is None else time.monotonic() + 3600 * given.hours
    units: dict[str, Units] = {}
    seconds = 0.0
    for candidate in dict.fromkeys([DEFAULT, *given.candidates]):
        found = {}
        for name in given.sets:
            photos, judges = holdout(SETS[name].open(given.data)[0], 0.5, seed=FIRST_SEED)
            found[name] = compare(
                photos,
                judges,
                model,
                out=given.work / name / candidate,
                shots=given.shots,
                seeds=range(FIRST_SEED, FIRST_SEED + given.seeds),
                arms=ARMS,
                levels=given.levels,
                copies=given.copies,
                steps=given.steps,
                hours=None if ends is None else max(0.0, (ends - time.monotonic()) / 3600),
                making=replace(CANDIDATES[candidate], copies=given.copies),
            )
        units[candidate] = units_of(found)
        seconds += sum(each.seconds for each in found.values())
    return units, seconds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("REDIFFUSE_DATA", "../shared/data")), help="folder of the sets")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), metavar="NAME", help=", ".join(CANDIDATES))
    parser.add_argument("--model", default="tiny-imagenet-64")
    parser.add_argument("--levels", nargs="+", default=["scratch", "resnet-64"])
    parser.add_argument("--shots", type=int, nargs="+", default=[4])
    parser.add_argument("--seeds", type=int, default=MIN_SEEDS, help=f"how many, from {FIRST_SEED} on")
    parser.add_argument("--copies", type=int, default=Making().copies)
    parser.add_argument("--steps", type=int, help="of the training from scratch")
    parser.add_argument("--hours", type=float, help="begin no part that would end later than this")
    parser.add_argument("--work", type=Path, default=Path("runs/choose_making"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    command = module_command("rediffuse.recipes.choose_making", sys.argv[1:] if arguments is None else arguments)
    try:
        model = load(given.model, device=given.device)
        limits = limits_of(model)
        units, seconds = search(given, model)
        rows, figures = table(units), headline(units)
        print(render_table(rows))
        departed = asked.departures(given, parser, DECIDING, ("seeds",))
        notes = [*asked.notes_of(departed), *limits, *notes_of(units, figures)]
        print("\n".join(notes))
        name = asked.named("ablation_making", departed)
        written = write_result(name, figures, rows, seconds, command=command, folder=given.out, notes=notes)
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
