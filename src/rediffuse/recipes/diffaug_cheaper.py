"""What DiffAug keeps when it is made cheaper: fewer views, or a bank of old ones, on CIFAR-10.

    python -m rediffuse.recipes.diffaug_cheaper --data ../shared/data --hours 2

Shows: for a denoiser call on every picture of every step, on a quarter of them, and for a bank that is refreshed at 25, 10 and 5 %, the
accuracy on corrupted test pictures and the part of the full gain that is kept, with its interval. A gain is that over the way's own
control: of a bank one of re-crops that no denoiser has seen, so that repetition is not credited to diffusion, of full two clean views,
since it repeats nothing. Beside it stands the share with both gains over two clean views. What each costs is `benchmarks.diffaug`'s to say;
gain_kept_bank here and step_ratio_bank there are of the same way, a bank of which 5 % are made anew, on a quarter of each batch; its
control is a bank of re-crops of that rate on that share.
Expected: not measured yet. The same command goes on where the last one stopped; with the --store of `diffaug_cifar10` its cells of plain
and diffaug are taken from there. Time of a seed on one core with AVX512-BF16: 3 hours for full, half an hour to one and a half for each of
the eight others, 26 hours for three seeds; `--arms plain repeated-5-quarter full bank-5-quarter` alone says gain_kept_bank, in 12, and in
14 where plain is not in the store. Not measured with an accelerator.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rediffuse.errors import RediffuseError
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.evaluation.statistics import Interval
from rediffuse.recipes.robust.arms import CHEAPER, FULL, PLAIN, REPEATED, REPEATED_QUARTER
from rediffuse.recipes.robust.bench import cells_of, missing_of, named, open_bench, open_store, options, run_cells
from rediffuse.recipes.robust.cells import Judgement
from rediffuse.recipes.robust.nets import NETS
from rediffuse.recipes.robust.table import gain_rows, kept_share, rows_of

NAME = "diffaug_cheaper"
MEASURE = "corrupted"
QUOTED = "bank-5-quarter"
"""The cheapest way that makes its views in training: its step is step_ratio_bank of `benchmarks.diffaug`. One whose bank was made before
takes less at each step, and the making besides."""
WHOLE = (PLAIN, REPEATED, REPEATED_QUARTER, FULL)
"""Controls, and what the others keep a part of."""
COLUMNS = ("net", "arm", "seeds", "clean", "corrupted", "without_noise", "kept", "kept_low", "kept_high", "kept_over_plain")
GAIN_COLUMNS = ("net", "arm", "over", "seeds", "clean", "corrupted", "without_noise")


def with_kept(rows: Sequence[dict[str, Any]], judgements: Sequence[Judgement]) -> dict[str, Interval]:
    """Add to each row the part of the full gain that it keeps, from the seeds that all arms of it have; returns them by name.

    kept is of the gains over each one's own control, kept_over_plain of those over two clean views.
    """
    runs = {(run.cell.net, run.cell.arm, run.cell.seed): run for run in judgements}
    found = {}
    for row in rows:
        if row["arm"] in WHOLE:
            continue
        own, full = CHEAPER[row["arm"]].against[0], CHEAPER[FULL].against[0]
        for key, arms in (("kept", (row["arm"], own, FULL, full)), ("kept_over_plain", (row["arm"], PLAIN, FULL, PLAIN))):
            seeds = sorted(seed for net, arm, seed in runs if (net, arm) == (row["net"], FULL))
            seeds = [seed for seed in seeds if all((row["net"], arm, seed) in runs for arm in arms)]
            if not seeds:
                continue
            ours, control, whole, whole_control = ([runs[row["net"], arm, seed] for seed in seeds] for arm in arms)
            kept = kept_share(ours, control, whole, whole_control, MEASURE)
            if kept is None:
                continue
            row |= {key: kept.value, f"{key}_low": kept.low, f"{key}_high": kept.high}
            found[f"{row['net']}_{row['arm']}_{key}"] = kept
            if row["arm"] == QUOTED and row["net"] == NETS[0]:
                found["gain_" + key.replace("kept", "kept_bank")] = kept
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    given = options(NAME, __doc__, CHEAPER).parse_args(arguments)
    command = module_command(f"rediffuse.recipes.{NAME}", sys.argv[1:] if arguments is None else arguments)
    try:
        cells = cells_of(given)
        bench = open_bench(given, CHEAPER)
        judgements = run_cells(bench, open_store(given, bench), cells, given.hours)
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    rows = rows_of(judgements, bench.truth, CHEAPER)
    headline = with_kept(rows, judgements)
    gains = gain_rows(judgements, bench.truth, CHEAPER)
    print(render_table(rows, COLUMNS), render_table(gains, GAIN_COLUMNS), sep="\n")
    rows = [*({"table": "arms", **row} for row in rows), *({"table": "gains", **row} for row in gains)]
    if missing := missing_of(bench, cells, judgements):
        print(f"{len(missing)} cells are missing: the same command goes on. No result was written", file=sys.stderr)
        return 1
    seconds = sum(run.facts["seconds"] for run in judgements)
    name = named(NAME, given)
    print(f"wrote {write_result(name, headline, rows, seconds, command=command, folder=given.out, device=str(bench.device))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
