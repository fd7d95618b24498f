"""How much of CIFAR-10 do robust classifiers certify? One-step denoised smoothing, every draw named by all of them.

    python -m rediffuse.recipes.certified_cifar10 --data DATA --store results/cells/diffaug_cifar10 --dtype float32

Shows: certified accuracy against the radius in L2, for each sigma and with sigma chosen on other pictures, of the nets that
`diffaug_cifar10` trained. Controls: nets trained on noise, with the denoiser and on the noisy picture itself, clamped as they know it. N
and the number of pictures are small: the table states the ceiling that N sets.
Expected: DiffAug's nets several points over those of noise at every radius up to 1 (results/certified_cifar10.json). The same command goes
on where the last one stopped, picture by picture; choose --arms and --seeds before, for another choice begins anew. Its tables (2 MB) lie
in --store, where another machine finds them, and several processes may share the sigmas: one with `--sigmas 0.5 --out elsewhere`, one with
the others; the full command then puts them together.
Time: 500 pictures of 1,100 draws at 3 sigmas ask the denoiser 1.65 million times and the nets 20 million times: 12 to 13 hours of one core
with AVX512 (2.2 pictures a minute in float32 behind the denoiser, 25 without), 23 with AVX2 alone; the seconds of the result are sums over
pictures that were asked on several machines, some beside other work. An accelerator takes 10,100 draws of each. Tables that were begun in
bfloat16 or float32 (`--dtype`) go on in it alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rediffuse.data.splits import chosen
from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.evaluation.certify.certifying import certify
from rediffuse.evaluation.certify.result import FOLDS, RADII, Certified
from rediffuse.evaluation.certify.smoothing import Smoothing
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.evaluation.statistics import Interval
from rediffuse.progress import Bar
from rediffuse.recipes.robust.arms import DIFFAUG, NOISE, SIZE
from rediffuse.recipes.robust.sets import FIT, test_images
from rediffuse.recipes.robust.trained import Trained, against, difference, figure, flat, kept_before, options, run

NAME = "certified_cifar10"
QUOTED = (0.25, 0.5, 0.75, 1.0)
"""Radii."""
DENOISED, BARE = "denoised", "no denoiser"


def place_of(given: argparse.Namespace, trained: Trained, smoother: str) -> Path:
    """Where the tables lie."""
    return trained.keep(given, f"certificates-{smoother.replace(' ', '-')}-{given.draws}", lasting=True)


def asked(given: argparse.Namespace, trained: Trained, denoiser: Denoiser) -> Certified:
    """The certificates of these nets; those that are in the folder are not made again."""
    plan = Smoothing(sigmas=tuple(given.sigmas), selection=given.selection, draws=given.draws)
    images, smoother = chosen(test_images(given.data), given.images, 0), BARE if isinstance(denoiser, NoDenoiser) else DENOISED
    folder = place_of(given, trained, smoother)
    with Bar(unit="pictures") as bar:
        bar.stage(smoother)  # its first count says what an earlier life has done
        return certify(trained.models, images, denoiser, plan, size=SIZE, fit=FIT, keep=folder, progress=bar.report)


def right(found: Certified, names: Sequence[str], radius: float, sigma: float | None) -> NDArray[np.bool_]:
    """(seeds, pictures), at a sigma or at the one chosen on other pictures."""
    if sigma is None:
        return np.stack([found.envelope(name, [radius]).right[0] for name in names])
    return np.stack([found.find(name, sigma).right(radius) for name in names])


def rows_of(found: Certified, trained: Trained, smoother: str, other_way: Certified | None = None) -> list[dict[str, Any]]:
    """A row for each arm, sigma and radius, means over seeds; DiffAug's with what it certifies more than others.

    other_way: certificates of the same nets behind a denoiser; rows then have what is certified more without it.
    """
    levels: list[float | None] = [*found.smoothing.sigmas, *([None] if found.images >= FOLDS else [])]
    rows = []
    for arm, names in trained.arms.items():
        for sigma in levels:
            ceiling = max(found.ceiling(each) for each in found.smoothing.sigmas) if sigma is None else found.ceiling(sigma)
            beside = {
                "table": "radii",
                "arm": arm,
                "smoother": smoother,
                "seeds": len(names),
                "sigma": sigma or "chosen",
                "ceiling": ceiling,
            }
            for radius in RADII:
                own = right(found, names, radius, sigma)
                within = radius <= ceiling  # beyond it nothing can be certified, whatever the pictures
                row = {**beside, "radius": radius, **flat("certified_accuracy", figure(own) if within else Interval(value=0.0))}
                for key, other in against(trained.arms) if arm == DIFFAUG else ():
                    gain = difference(own, right(found, trained.arms[other], radius, sigma)) if within else Interval(value=0.0)
                    row |= flat(key, gain)
                if other_way is not None:
                    gain = difference(own, right(other_way, names, radius, sigma)) if within else Interval(value=0.0)
                    row |= flat("gain_over_denoised", gain)
                rows.append(row)
    return rows


def curve_rows(found: Certified, trained: Trained, smoother: str) -> list[dict[str, Any]]:
    """Certified accuracy of the first net of each arm along the radius, with what must stand beside it, for figures."""
    first = [(arm, found.find(names[0], sigma)) for arm, names in trained.arms.items() for sigma in found.smoothing.sigmas]
    beside = {"smoother": smoother, "draws": found.smoothing.draws, "images": found.images}
    return [
        {
            "table": "curve",
            "arm": arm,
            **beside,
            "sigma": series.sigma,
            "ceiling": series.ceiling,
            "points": [list(point) for point in series.curve()],
        }
        for arm, series in first
    ]


def headline_of(found: Certified, bare: Certified | None, trained: Trained) -> dict[str, Interval]:
    """What DiffAug's nets certify more than others, each at the sigma chosen for it.

    bare: certificates of the nets that learned from noise, without the denoiser, which they have never seen; on the same draws.
    """
    if found.images < FOLDS:
        return {}
    rivals = [(key, found, arm) for key, arm in against(trained.arms)]
    if bare is not None:
        rivals.append(("gain_over_noise_without_denoiser", bare, NOISE))
    return {
        f"{key}_at_{round(100 * radius):03d}": difference(
            right(found, trained.arms[DIFFAUG], radius, None), right(other, trained.arms[arm], radius, None)
        )
        for key, other, arm in rivals
        for radius in QUOTED
        if DIFFAUG in trained.arms
    }


def work(given: argparse.Namespace, trained: Trained) -> Path:
    denoiser = load(given.denoiser, device=given.device, dtype=given.dtype)
    before = kept_before(place_of(given, trained, DENOISED), whole=True)
    found = asked(given, trained, denoiser)
    rows, curves, seconds = rows_of(found, trained, DENOISED), curve_rows(found, trained, DENOISED), found.seconds
    bare: Certified | None = None
    if NOISE in trained.arms:
        control = trained.some([NOISE])
        # They have learned from x + sigma z clamped, so that is what they are asked about; any function of the noisy tensor is sound.
        bare = asked(given, control, NoDenoiser(denoiser.schedule, size=SIZE).to(denoiser.device))
        rows, curves = rows + rows_of(bare, control, BARE, found), curves + curve_rows(bare, control, BARE)
        seconds += bare.seconds
    print(render_table([row for row in rows if row["sigma"] == "chosen"]))
    headline, device = headline_of(found, bare, trained), str(denoiser.device)
    numbers = str(getattr(denoiser, "dtype", torch.float32)).removeprefix("torch.")
    said = [*found.conditions(), *trained.conditions(), f"denoiser and nets computed in {numbers}", *before]
    return write_result(given.name, headline, rows + curves, seconds, command=given.command, folder=given.out, device=device, notes=said)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(NAME, __doc__, images=500)
    parser.add_argument("--denoiser", default="cifar10-32", help="unconditional pixel model that has seen nothing but the 45,000")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--selection", type=int, default=100, help="N0")
    parser.add_argument("--draws", type=int, help="N, by default 10,000 with an accelerator and 1,000 on a processor")
    return run(NAME, parser, work, arguments, lambda device: {"draws": 1000 if device.type == "cpu" else 10_000})


if __name__ == "__main__":
    sys.exit(main())
