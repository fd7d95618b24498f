"""What the cells of the DiffAug experiment say: accuracy by arm, and each arm against others on the same test pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rediffuse.evaluation.corruptions.constants import ALL, COMMON, GROUPS, SEVERITIES
from rediffuse.evaluation.statistics import MIN_SEEDS, Interval, basis_of_runs, bootstrap, paired_bootstrap, paired_t_interval, t_interval
from rediffuse.recipes.robust.arms import ARMS, DIFFAUG, LINEAR, NOISE, PLAIN, PLAIN_FLOPS, Arm
from rediffuse.recipes.robust.bench import LEAST_CLEAN
from rediffuse.recipes.robust.cells import CLEAN, TEST, Judgement, keys_of
from rediffuse.recipes.robust.nets import NETS
from rediffuse.recipes.robust.sets import NATURAL

CALM = tuple(name for name in COMMON if name not in GROUPS["noise"])
"""Without the noise group, which noise alone trains for."""
MEASURES: Mapping[str, tuple[str, ...]] = {
    "clean": (CLEAN,),
    "corrupted": tuple(keys_of(COMMON)),
    "corrupted_5": tuple(keys_of(COMMON, (5,))),
    "without_noise": tuple(keys_of(CALM)),
    **{group: tuple(keys_of(GROUPS[group])) for group in ("noise", "blur", "weather", "digital", "extra")},
    NATURAL: (NATURAL,),
}
"""What is reported -> the copies of a test picture that it is a mean over. Of pictures of another make there are no copies."""
Truth = Mapping[str, Sequence[int]]
"""Labels of the test pictures and, where there are any, of those of another make."""
RESAMPLES = 1000


def labels_of(truth: Truth, measure: str) -> Sequence[int]:
    return truth[NATURAL if measure == NATURAL else TEST]


def measures(runs: Sequence[Judgement]) -> list[str]:
    """What can be said of all these runs."""
    return [name for name, keys in MEASURES.items() if all(key in run.right for run in runs for key in keys)]


def accuracy(runs: Sequence[Judgement], measure: str, truth: Truth) -> Interval:
    """Mean over classes; over seeds where there are enough, else over test pictures."""
    labels = labels_of(truth, measure)
    shares = np.stack([run.share(MEASURES[measure]) for run in runs])
    if len(runs) >= MIN_SEEDS:
        return t_interval([bootstrap(share[None], labels, resamples=1).value for share in shares])
    return bootstrap(shares, labels, resamples=RESAMPLES)


def gain(ours: Sequence[Judgement], theirs: Sequence[Judgement], measure: str, truth: Truth) -> Interval:
    """Paired difference of two arms, seed by seed and picture by picture."""
    return gain_on(ours, theirs, MEASURES[measure], labels_of(truth, measure))


def gain_on(ours: Sequence[Judgement], theirs: Sequence[Judgement], keys: Sequence[str], labels: Sequence[int]) -> Interval:
    """The same on any copies of the pictures."""
    if len(ours) >= MIN_SEEDS:
        return paired_t_interval(*_by_seed(ours, theirs, keys, labels))
    first, second = (np.stack([run.share(keys) for run in runs]) for runs in (ours, theirs))
    return paired_bootstrap(first, second, labels, resamples=RESAMPLES)


def _by_seed(
    ours: Sequence[Judgement], theirs: Sequence[Judgement], keys: Sequence[str], labels: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Accuracy of each run, a mean over classes."""
    first, second = ([bootstrap(run.share(keys)[None], labels, resamples=1).value for run in runs] for runs in (ours, theirs))
    return first, second


def rows_of(judgements: Sequence[Judgement], truth: Truth, arms: Mapping[str, Arm] = ARMS) -> list[dict[str, Any]]:
    """One row a net and arm that has cells: how often it is right."""
    groups = _groups(judgements)
    rows = []
    for net in dict.fromkeys(net for net, _ in groups):
        for name in arms:
            own = list(groups.get((net, name), {}).values())
            if not own:
                continue
            row: dict[str, Any] = {"net": net, "arm": name, "seeds": len(own)}
            for measure in measures(own):
                row |= _flat(measure, accuracy(own, measure, truth))
            row |= {"held": [run.held for run in own], "facts": [dict(run.facts) for run in own]}
            rows.append(row)
    return rows


def gain_rows(judgements: Sequence[Judgement], truth: Truth, arms: Mapping[str, Arm] = ARMS) -> list[dict[str, Any]]:
    """One row a net, arm and other arm that it is held against: the differences, of the seeds that both have.

    MEASURE_seeds: the difference of each seed, which an interval over test pictures says nothing of.
    """
    groups = _groups(judgements)
    rows = []
    for net in dict.fromkeys(net for net, _ in groups):
        for name, other in [(arm.name, other) for arm in arms.values() for other in arm.against]:
            own, their = groups.get((net, name), {}), groups.get((net, other), {})
            ours, theirs = _shared(own, their)
            if not ours:
                continue
            row: dict[str, Any] = {"net": net, "arm": name, "over": other, "seeds": len(ours)}
            for measure in measures([*ours, *theirs]):
                row |= _flat(measure, gain(ours, theirs, measure, truth))
                each = _by_seed(ours, theirs, MEASURES[measure], labels_of(truth, measure))
                row[f"{measure}_seeds"] = [first - second for first, second in zip(*each, strict=True)]
            rows.append(row)
    return rows


def _groups(judgements: Sequence[Judgement]) -> dict[tuple[str, str], dict[int, Judgement]]:
    """(net, arm) -> seed -> judgement."""
    found: dict[tuple[str, str], dict[int, Judgement]] = {}
    for judgement in judgements:
        found.setdefault((judgement.cell.net, judgement.cell.arm), {})[judgement.cell.seed] = judgement
    return found


def _shared(own: Mapping[int, Judgement], other: Mapping[int, Judgement]) -> tuple[list[Judgement], list[Judgement]]:
    """Judgements of the seeds that both arms have."""
    both = sorted(own.keys() & other.keys())
    return [own[seed] for seed in both], [other[seed] for seed in both]


def corruption_rows(judgements: Sequence[Judgement], truth: Truth, arms: Mapping[str, Arm] = ARMS) -> list[dict[str, Any]]:
    """A row for each net, arm, corruption and severity: the share named rightly, a mean over seeds.

    gain_over_OTHER: the paired difference from the arm that it is held against first, and from plain where it is held against that; of the
    seeds that both have, so many as gain_over_OTHER_runs says.
    """
    rows, groups = [], _groups(judgements)
    for net in dict.fromkeys(net for net, _ in groups):
        for arm in arms.values():
            own = groups.get((net, arm.name), {})
            others = dict.fromkeys((*arm.against[:1], *(other for other in arm.against if other == PLAIN)))
            pairs = {other: _shared(own, groups.get((net, other), {})) for other in others}
            for name in ALL if own else ():
                for severity in SEVERITIES:
                    key = f"{name}-{severity}"
                    row: dict[str, Any] = {"net": net, "arm": arm.name, "seeds": len(own), "corruption": name, "severity": severity}
                    row["accuracy"] = float(np.mean([run.right[key].mean() for run in own.values()]))
                    for other, (ours, theirs) in pairs.items():
                        if ours:
                            found = gain_on(ours, theirs, (key,), truth[TEST])
                            row |= {**_flat(f"gain_over_{other}", found), f"gain_over_{other}_runs": found.runs}
                    rows.append(row)
    return rows


def kept_share(
    ours: Sequence[Judgement], control: Sequence[Judgement], full: Sequence[Judgement], full_control: Sequence[Judgement], measure: str,
    *, level: float = 0.95, seed: int = 0,
) -> Interval | None:  # fmt: skip
    """(ours - control) / (full - full_control): which part of the full gain a cheaper way keeps, test pictures drawn again.

    Runs are those of the same seeds. None where there is no full gain; no interval where it is not above zero in every drawn test set.
    """
    sides = [np.stack([run.share(MEASURES[measure]) for run in runs]).mean(axis=0) for runs in (ours, control, full, full_control)]
    count = len(sides[0])
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) @ np.stack(sides, axis=1) / count
    own, whole = drawn[:, 0] - drawn[:, 1], drawn[:, 2] - drawn[:, 3]
    found = [float(side.mean()) for side in sides]
    if found[2] <= found[3]:
        return None
    value = (found[0] - found[1]) / (found[2] - found[3])
    if not (whole > 0).all():
        return Interval(value=value, runs=len(ours))
    low, high = np.quantile(own / whole, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high), runs=len(ours), basis=basis_of_runs(len(ours)))


QUOTED: Mapping[str, tuple[str, str, str]] = {
    "corruption5_gain": (DIFFAUG, PLAIN, "corrupted_5"),
    "gain_over_noise_only": (DIFFAUG, NOISE, "corrupted"),
    "gain5_over_noise_only": (DIFFAUG, NOISE, "corrupted_5"),
    "gain_without_noise_group": (DIFFAUG, NOISE, "without_noise"),
    "gain_over_linear": (DIFFAUG, LINEAR, "corrupted"),
    "gain5_over_linear": (DIFFAUG, LINEAR, "corrupted_5"),
    "gain_over_linear_without_noise_group": (DIFFAUG, LINEAR, "without_noise"),
    "gain_over_plain_without_noise_group": (DIFFAUG, PLAIN, "without_noise"),
    "gain_equal_flops": (DIFFAUG, PLAIN_FLOPS, "corrupted"),
    "clean_change": (DIFFAUG, PLAIN, "clean"),
    "augmix_corruption5_gain": ("augmix-diffaug", "augmix", "corrupted_5"),
    "deepaugment_corruption5_gain": ("deepaugment-diffaug", "deepaugment", "corrupted_5"),
    "natural_shift_gain": (DIFFAUG, PLAIN, NATURAL),
}
"""Key of the result -> (arm, the arm it is held against, on what)."""


def headline_of(judgements: Sequence[Judgement], truth: Truth) -> dict[str, Interval]:
    """The quoted figures, of the seeds that both arms have; none of a net whose plain arm is too weak or missing.

    Those of another net than the recipe's have its name before them.
    """
    runs = {(run.cell.net, run.cell.arm, run.cell.seed): run for run in judgements}
    plain = rows_of([run for run in judgements if run.cell.arm == PLAIN], truth)
    nets = [row["net"] for row in plain if row["net"] not in too_weak(plain)]
    found: dict[str, Interval] = {}
    for net in nets:
        for key, (arm, other, measure) in QUOTED.items():
            seeds = sorted(seed for own, name, seed in runs if (own, name) == (net, arm) and (net, other, seed) in runs)
            ours, theirs = ([runs[net, name, seed] for seed in seeds] for name in (arm, other))
            if seeds and measure in measures([*ours, *theirs]):
                found[key if net == NETS[0] else f"{net}_{key}"] = gain(ours, theirs, measure, truth)
    return found


def too_weak(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Nets whose plain arm names too few clean pictures rightly for any figure of theirs to be quoted."""
    return [row["net"] for row in rows if row["arm"] == PLAIN and row["clean"] < LEAST_CLEAN]


def _flat(name: str, interval: Interval) -> dict[str, Any]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
