"""Do robust classifiers of CIFAR-10 know what they do not know? Nine scores, two near and three far sets of unknown pictures.

    python -m rediffuse.recipes.ood_cifar10 --data DATA --store results/cells/diffaug_cifar10

Shows: AUROC, AUPR and FPR95 of the nets that `diffaug_cifar10` trained, on near sets (CIFAR-100, Tiny ImageNet without CIFAR-10's things)
and far ones (textures, EuroSAT, MNIST), all at 32 pixels by one antialiased resize. The quoted gain is in the mean of MSP, energy and KNN;
beside it stands that of the paper's four. Nothing is tuned: percentiles are the published ones.
Expected: near sets a point worse than plain nets, far ones better (results/ood_cifar10.json).
The same command goes on where the last one stopped.
Time: 22,000 pictures to judge and 30,000 for the bank by each of nine nets: 10 minutes of one core with AVX512-BF16, 14.5 with AVX2 alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.data.splits import chosen
from rediffuse.evaluation.ood.asking import Asked, askable
from rediffuse.evaluation.ood.resampling import interval, resampled_auroc
from rediffuse.evaluation.ood.result import GROUPS, MEANS, RESAMPLES, judge
from rediffuse.evaluation.ood.scores import SCORES
from rediffuse.evaluation.ood.scoring import Scored, score_sets
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.evaluation.statistics import MIN_SEEDS, Interval, t_interval
from rediffuse.progress import Bar
from rediffuse.recipes.robust.arms import DIFFAUG, SIZE
from rediffuse.recipes.robust.sets import FIT, test_images, training_images, unknown_images
from rediffuse.recipes.robust.trained import Trained, against, flat, kept_before, options, run

NAME = "ood_cifar10"
QUOTED: Mapping[str, str] = {"headline": "", "paper": "_paper"}
"""Mean over scores -> how the key of a quoted gain ends."""


class Areas:
    """AUROC of each net, set and score, and of as many drawn test sets.

    Args:
        scored: of `scoring.score_sets`.
        resamples: drawn test sets.
    """

    def __init__(self, scored: Scored, resamples: int = RESAMPLES) -> None:
        self.scored = scored
        self.value, self.drawn = resampled_auroc(scored, resamples)  # (models, sets, scores), (resamples, models, sets, scores)

    def mean(self, names: Sequence[str], group: str, score: str, minus: Sequence[str] = ()) -> Interval:
        """Mean over sets, over the scores that a name stands for, and over nets; less that of other nets of the same seeds.

        group: of sets, or the name of one.
        """
        own, other = self._each(names, group, score), self._each(minus, group, score) if minus else None
        each = [found if other is None else found - less for found, less in zip(own, other or own, strict=True)]
        if len(names) >= MIN_SEEDS:
            return t_interval(each[0].tolist())
        value, drawn = each[0].mean(), each[1].mean(axis=1)
        return interval(self.scored, self._sets(group), value, drawn, paired=other is not None, runs=len(names))

    def _sets(self, group: str) -> list[int]:
        return [place for place, part in enumerate(self.scored.sets[1:]) if group in (part.group, part.name)]

    def _each(self, names: Sequence[str], group: str, score: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """((nets,), (resamples, nets))."""
        nets, sets = [self.scored.models.index(name) for name in names], self._sets(group)
        scores = [self.scored.scores.index(one) for one in MEANS.get(score, (score,))]
        found = [array[..., nets, :, :][..., sets, :][..., scores].mean(axis=(-2, -1)) for array in (self.value, self.drawn)]
        return found[0], found[1]


def set_rows(areas: Areas, trained: Trained) -> list[dict[str, Any]]:
    """A row for each arm, unknown set and mean of scores; means over seeds."""
    pairs = against(trained.arms)
    scores = [score for score, parts in MEANS.items() if all(part in areas.scored.scores for part in parts)]
    rows = []
    for arm, own in trained.arms.items():
        for part in areas.scored.sets[1:]:
            beside = {"table": "sets", "arm": arm, "set": part.name, "group": part.group, "seeds": len(own)}
            for score in scores:
                row: dict[str, Any] = {**beside, "score": score}
                row |= flat("auroc", areas.mean(own, part.name, score))
                for key, other in pairs if arm == DIFFAUG else ():
                    row |= flat(key, areas.mean(own, part.name, score, trained.arms[other]))
                rows.append(row)
    return rows


def rows_of(areas: Areas, trained: Trained) -> list[dict[str, Any]]:
    """A row for each arm, group and score or mean of scores; means over seeds."""
    means = {(row.model, row.group, row.score): row for row in judge(areas.scored, resamples=1).means}
    names = dict.fromkeys(score for _, _, score in means)
    pairs = dict(against(trained.arms))
    rows = []
    for arm, own in trained.arms.items():
        for group in GROUPS:
            for score in names:
                row: dict[str, Any] = {"table": "scores", "arm": arm, "group": group, "score": score, "seeds": len(own)}
                row |= flat("auroc", areas.mean(own, group, score))
                for figure in ("aupr_known", "aupr_unknown", "fpr95"):
                    row[figure] = float(np.mean([getattr(means[name, group, score], figure) for name in own]))
                if arm == DIFFAUG:
                    for key, other in pairs.items():
                        row |= flat(key, areas.mean(own, group, score, trained.arms[other]))
                rows.append(row)
    return rows


def headline_of(areas: Areas, trained: Trained) -> dict[str, Interval]:
    return {
        f"{group}_auroc_{key}{ending}": areas.mean(trained.arms[DIFFAUG], group, score, trained.arms[arm])
        for key, arm in against(trained.arms)
        for group in GROUPS
        for score, ending in QUOTED.items()
        if all(part in areas.scored.scores for part in MEANS[score])
    }


def work(given: argparse.Namespace, trained: Trained) -> Path:
    known, train = chosen(test_images(given.data), given.images, 0), training_images(given.data, given.held)
    near, far = unknown_images(given.data, [*known.digests, *train.digests])
    fit = [set(askable(model, known, size=SIZE, fit=FIT)) for model in trained.models]  # some scores want features behind a ReLU
    scores = tuple(score for score in SCORES if all(score in own for own in fit))
    asked = Asked(size=SIZE, fit=FIT, scores=scores, bank=given.bank, neighbours=given.neighbours)
    keep = trained.keep(given, "unknown")
    before = kept_before(keep)
    with Bar(unit="pictures") as bar:
        bar.stage("asking about unknown pictures", len(known))
        scored = score_sets(trained.models, known, asked=asked, near=near, far=far, train=train, keep=keep, progress=bar.report)
    areas = Areas(scored)
    rows, sets = rows_of(areas, trained), set_rows(areas, trained)
    print(render_table([row for row in rows if row["score"] in MEANS]), render_table(sets), sep="\n")
    device = str(trained.models[0].device)
    told = ", ".join(f"{part.name} ({part.group}, {len(part):,})" for part in scored.sets)
    notes = [told, *(f"{key}: {value}" for key, value in scored.settings.items()), *trained.conditions(), *before]
    headline = headline_of(areas, trained)
    return write_result(
        given.name, headline, rows + sets, scored.seconds, command=given.command, folder=given.out, device=device, notes=notes
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(NAME, __doc__, images=None)
    parser.add_argument("--bank", type=int, default=30_000, help="training pictures for the scores that want some")
    parser.add_argument("--neighbours", type=int, default=50, help="k of KNN")
    parser.add_argument("--held", type=int, default=5000, help="training pictures that the nets have not seen")
    return run(NAME, parser, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
