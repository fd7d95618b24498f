"""Can the confidence of robust classifiers of CIFAR-10 be believed, and do they know when noise has left next to nothing of a picture?

    python -m rediffuse.recipes.calibration_cifar10 --data DATA --store results/cells/diffaug_cifar10

Shows: calibration errors, Brier score and likelihood of the nets that `diffaug_cifar10` trained, as they are and at a temperature that was
fitted on the 5,000 training pictures that they have not seen; and the mean entropy of what they say of one-step views against the noise
time (the paper's Fig. 2), with the share of views that they still name rightly.
Expected: at the last time DiffAug's nets near .98 of the largest entropy, plain ones near .26; of those views DiffAug's name 13 % rightly
and plain ones 11 %, as an answer that never changes can (results/calibration_cifar10.json).
The same command goes on where the last one stopped.
Time: nine nets, 15,000 pictures, and 500 pictures at 27 times: 7 minutes of one core with AVX512-BF16, 14 with AVX2 alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.data.splits import chosen
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.load import load
from rediffuse.evaluation.calibrating import Calibrations, calibrate
from rediffuse.evaluation.calibration import Judgements
from rediffuse.evaluation.calibration_gain import METRICS, paired_gain
from rediffuse.evaluation.entropy import EntropyCurve, entropy_curve
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.evaluation.statistics import Interval
from rediffuse.progress import Bar
from rediffuse.recipes.robust.arms import DIFFAUG, SIZE
from rediffuse.recipes.robust.sets import FIT, held_images, test_images
from rediffuse.recipes.robust.trained import Trained, against, difference, figure, flat, kept_before, options, run

NAME = "calibration_cifar10"
QUOTED = ("ece", "nll")


def judgements(found: Calibrations, name: str, scaled: bool) -> Judgements:
    own = found.find(name)
    return own.as_is if own.scaled is None or not scaled else own.scaled


def change(found: Calibrations, ours: Sequence[str], theirs: Sequence[str], metric: str, *, scaled: bool = False) -> Interval:
    """A figure of some nets less that of others of the same seeds, a mean over seeds."""
    pairs = [(judgements(found, a, scaled), judgements(found, b, scaled)) for a, b in zip(ours, theirs, strict=True)]
    return paired_gain(pairs, metric)


def calibration_rows(found: Calibrations, trained: Trained) -> list[dict[str, Any]]:
    """A row an arm: means over seeds, as the nets are and at their temperatures."""
    rows = []
    for arm, names in trained.arms.items():
        each = [found.find(name).row() for name in names]
        keys = [key for key in each[0] if key != "model"]
        means = {key: float(np.mean([row[key] for row in each])) for key in keys}
        rows.append({"table": "calibration", "arm": arm, "seeds": len(names), **means})
    return rows


def diagram_rows(found: Calibrations, trained: Trained) -> list[dict[str, Any]]:
    """The reliability diagram of the first net of each arm, for figures."""
    return [{"table": "diagram", "arm": arm, **asdict(found.find(names[0]).diagram())} for arm, names in trained.arms.items()]


def shares(curve: EntropyCurve, names: Sequence[str], at: int) -> NDArray[np.float64]:
    """(seeds, pictures) entropy at a time over log K, the most that there can be."""
    places = [curve.models.index(name) for name in names]
    return curve.entropies[places, :, at].astype(np.float64) / math.log(curve.classes[places[0]])


def still_right(curve: EntropyCurve, names: Sequence[str], at: int) -> NDArray[np.bool_] | None:
    """(seeds, pictures) whether the view of a time is still named rightly; None of pictures without labels."""
    return None if curve.right is None else curve.right[[curve.models.index(name) for name in names], :, at]


def entropy_rows(curve: EntropyCurve, trained: Trained) -> list[dict[str, Any]]:
    """A row for each arm and time: mean entropy in nats, its share of the largest, and how many views are still named rightly.

    DiffAug's rows have how much more of the largest entropy it has than others, paired by picture.
    """
    rows = []
    for arm, names in trained.arms.items():
        top = math.log(curve.classes[curve.models.index(names[0])])
        for at, (t, sigma) in enumerate(zip(curve.times, curve.sigma, strict=True)):
            row: dict[str, Any] = {"table": "entropy", "arm": arm, "seeds": len(names), "t": t, "sigma": sigma}
            own, right = shares(curve, names, at), still_right(curve, names, at)
            found = figure(own)
            row |= flat("entropy", times(found, top)) | flat("share", found)
            if right is not None:
                row |= flat("accuracy", figure(right))
            for _, other in against(trained.arms) if arm == DIFFAUG else ():
                row |= flat(f"share_over_{other}", difference(own, shares(curve, trained.arms[other], at)))
            rows.append(row)
    return rows


def times(found: Interval, factor: float) -> Interval:
    """An interval in another unit."""
    low, high = (None if end is None else factor * end for end in (found.low, found.high))
    return replace(found, value=factor * found.value, low=low, high=high)


def last_of(curve: EntropyCurve, trained: Trained) -> dict[str, Interval]:
    """What is quoted of the last time: each arm's entropy as a share of log K, DiffAug's over the others', and accuracy there."""
    found = {f"{arm}_last_entropy": figure(shares(curve, names, -1)) for arm, names in trained.arms.items()}
    for _, other in against(trained.arms):
        ours, theirs = (shares(curve, trained.arms[arm], -1) for arm in (DIFFAUG, other))
        found[f"last_entropy_over_{other}"] = difference(ours, theirs)
    for arm, names in trained.arms.items():
        if (right := still_right(curve, names, -1)) is not None:
            found[f"{arm}_last_accuracy"] = figure(right)
    return found


def largest_class(images: ImageSet) -> float:
    """The share of the class that has most pictures: what a constant answer can be right on."""
    labels = list(images.labels)
    return max(map(labels.count, set(labels))) / len(labels)


def work(given: argparse.Namespace, trained: Trained) -> Path:
    denoiser, test = load(given.denoiser, device=given.device, dtype=given.dtype), chosen(test_images(given.data), given.images, 0)
    held, few = held_images(given.data, given.held), chosen(test, given.entropy_images, 0)
    keep, keep_views = (trained.keep(given, what) for what in ("calibration", f"entropy-{len(few)}"))
    before = kept_before(keep, keep_views)
    with Bar(unit="pictures") as bar:
        bar.stage("calibration", len(test) + len(held))
        found = calibrate(
            trained.models,
            test,
            size=SIZE,
            fit=FIT,
            temperature_images=held,
            keep=keep,
            progress=bar.report,
        )
        bar.stage("entropy of noisy views", len(few))
        curve = entropy_curve(trained.models, few, denoiser, size=SIZE, fit=FIT, keep=keep_views, progress=bar.report)
    rows = [*calibration_rows(found, trained), *entropy_rows(curve, trained), *diagram_rows(found, trained)]
    print(render_table([row for row in rows if row["table"] == "calibration"], ["arm", "seeds", *METRICS, "temperature", "ece_scaled"]))
    headline: dict[str, Interval] = {
        f"{metric}{ending}_{key}": change(found, trained.arms[DIFFAUG], trained.arms[arm], metric, scaled=bool(ending))
        for key, arm in against(trained.arms)
        for metric in QUOTED
        for ending in ("", "_scaled")
    }
    headline |= last_of(curve, trained)
    notes = [
        f"{found.images} test pictures, {len(held)} others for the temperatures; {len(few)} for the entropies",
        "a gain below 0 is less error; last_entropy is the share of log K at the last time, last_accuracy the share of views named rightly",
        f"one answer for all names up to {largest_class(few):.3g} of those {len(few)} rightly (chance {1 / len(test.classes):.2g})",
        *trained.conditions(),
        *before,
    ]
    seconds, device = found.seconds + curve.seconds, str(denoiser.device)
    return write_result(given.name, headline, rows, seconds, command=given.command, folder=given.out, device=device, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(NAME, __doc__, images=None)
    parser.add_argument("--denoiser", default="cifar10-32", help="unconditional pixel model that makes the views")
    parser.add_argument("--entropy-images", type=int, default=500, help="test pictures that are seen under noise")
    parser.add_argument("--held", type=int, default=5000, help="training pictures that the nets have not seen")
    return run(NAME, parser, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
