"""Corrupted copies a second, and how near they come to another maker's.

    python -m benchmarks.corruptions --data ../shared/data/cifar10 --images 300 --out results
    python -m benchmarks.corruptions --agreement --out results

Arms of the first, with the same pictures:
    ours      `corrupt` on batches.
    package   imagecorruptions (extra `corruptions`), a picture at a time, as it is called; left out where it is not installed. Its
              constants are those of 224 px at every size, so its pictures differ, its work is another (larger blurs, fewer enlargements),
              and only its time counts; what it compiles at first is not counted.
One process, one thread; the arms take turns within each corruption, and the median of the repeats counts. Counted is the processor's time
of this process, so that others on the machine do not decide. The seconds of the headline are for the five severities of the fifteen
common corruptions of 10,000 pictures, on one core.

The second compares pictures at 224 px: mean absolute difference in levels where nothing or the same is drawn, else the mean and the PSNR
against the clean picture.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from benchmarks.common import Measured, options, run, turns
from benchmarks.machine import describe
from PIL import Image
from torch import Tensor

from rediffuse.data.images import to_tensor
from rediffuse.data.open import open_images
from rediffuse.evaluation.corruptions import blur, digital, weather
from rediffuse.evaluation.corruptions.apply import FIXED, corrupt, generator_of
from rediffuse.evaluation.corruptions.constants import ALL, COMMON, SEVERITIES, constants
from rediffuse.evaluation.corruptions.frost import Overlays, photo_folder
from rediffuse.evaluation.corruptions.levels import cut
from rediffuse.evaluation.results import Figure, render_table

Arm = Callable[[Tensor, str, int], Tensor]
"""(images, corruption, severity) -> the corrupted copies."""
SHOWN = 10_000
SIDE = 224
SAME = ("frost", "fog", "motion_blur")
"""Few draws decide a picture, so that distributions are slow to tell apart; both draw the same and pictures are compared."""


def ours(images: Tensor, corruption: str, severity: int) -> Tensor:
    return corrupt(images, corruption, severity)


def package(images: Tensor, corruption: str, severity: int) -> Tensor:
    """imagecorruptions, picture by picture."""
    from imagecorruptions import corrupt as corrupt_one

    more = {"seed": 0} if corruption in ("impulse_noise", "glass_blur") else {}
    rows = images.permute(0, 2, 3, 1).numpy()
    made = [corrupt_one(row, severity, corruption, **more) for row in rows]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


def every_severity(arm: Arm, images: Tensor, corruption: str) -> None:
    for severity in SEVERITIES:
        arm(images, corruption, severity)


def speeds(images: Tensor, arms: dict[str, Arm], repeats: int) -> list[dict[str, Any]]:
    """A row a corruption: milliseconds a copy of each arm, over all severities."""
    rows = []
    for corruption in ALL:
        for arm in arms.values():
            arm(images[:2], corruption, 1)
        calls = {name: partial(every_severity, arm, images, corruption) for name, arm in arms.items()}
        seconds, _ = turns(calls, repeats, clock=time.process_time)
        copies = len(images) * len(SEVERITIES)
        row: dict[str, Any] = {"corruption": corruption}
        row |= {f"{name}_ms": 1000 * statistics.median(found) / copies for name, found in seconds.items()}
        if "package" in arms:
            row["times"] = row["package_ms"] / row["ours_ms"]
        rows.append(row)
    whole = sum(row["ours_ms"] for row in rows if row["corruption"] in COMMON)
    for row in rows:
        row["share"] = row["ours_ms"] / whole if row["corruption"] in COMMON else None
    return rows


def sample_pictures() -> Tensor:
    """(8, 3, 224, 224) uint8: pieces of the two photos that scikit-learn carries."""
    from sklearn.datasets import load_sample_images

    photos = [torch.from_numpy(photo.copy()).permute(2, 0, 1) for photo in load_sample_images().images]
    places = [(top, left) for top in (0, 203) for left in (0, 416)]
    return torch.stack([photo[:, top : top + SIDE, left : left + SIDE] for photo in photos for top, left in places]).contiguous()


class SameDraws:
    """The package's source of randomness behind the names that ours are drawn by: what the first takes, the other takes too."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.RandomState(seed)  # the package knows no other source
        self.random, self.uniform, self.integers = self._source.random_sample, self._source.uniform, self._source.randint


def package_overlays() -> Overlays:
    """Frost as the package lays it over 224 px: all six photos, a tenth larger."""
    folder, photos = photo_folder(), []
    for file in sorted(folder.glob("frost*")) if folder is not None else ():
        photo = Image.open(file).convert("RGB")
        larger = photo.resize((math.ceil(photo.width * 1.1), math.ceil(photo.height * 1.1)), Image.Resampling.BICUBIC)
        photos.append(np.asarray(larger).transpose(2, 0, 1))
    return Overlays(photos=tuple(photos), source="photos", digest="")


def same_draws(images: Tensor, corruption: str, severity: int) -> float:
    """Mean absolute difference, in levels, when both draw the same."""
    from imagecorruptions import corrupt as corrupt_one

    numbers = constants(corruption, severity, SIDE)
    generators: Any = [SameDraws(row) for row in range(len(images))]
    functions = {"fog": weather.fog, "motion_blur": blur.motion_blur, "frost": partial(weather.frost, overlays=package_overlays())}
    mine = cut(functions[corruption](images.numpy().astype(np.float32), generators, numbers))
    found = 0.0
    for row, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        np.random.seed(row)  # noqa: NPY002
        theirs = corrupt_one(image, severity, corruption).transpose(2, 0, 1)
        found += float(np.abs(mine[row] - theirs).mean()) / len(images)
    return found


def like_package(images: Tensor, corruption: str, severity: int, draw: int) -> Tensor:
    """Ours; the elastic transform with the package's own constants, which move no corners and are not those of the published set."""
    if corruption != "elastic_transform":
        return corrupt(images, corruption, severity, seed=draw)
    generators = [generator_of(str(row), corruption, severity, draw) for row in range(len(images))]
    strength = 250 * (0.05, 0.065, 0.085, 0.1, 0.12)[severity - 1] * 0.005 * SIDE
    found = digital.elastic_transform(images.numpy().astype(np.float32), generators, (strength, 0.01 * SIDE, 0))
    return torch.from_numpy(cut(found).astype(np.uint8))


def psnr(found: Tensor, clean: Tensor) -> float:
    """dB, of the mean squared difference of all pictures."""
    return float(10 * torch.log10(255**2 / (found.double() - clean.double()).square().mean()))


def compare(images: Tensor, corruption: str, severity: int, draws: int) -> dict[str, Any]:
    """How ours differs from the package's. Random ones: `draws` of each picture on either side."""
    row: dict[str, Any] = {"corruption": corruption, "severity": severity}
    if corruption in FIXED:
        mine, theirs = corrupt(images, corruption, severity), package(images, corruption, severity)
        return row | {"mean_difference": float((mine.double() - theirs.double()).abs().mean())}
    if corruption in SAME:
        return row | {"mean_difference": same_draws(images, corruption, severity)}
    np.random.seed(severity)  # noqa: NPY002  # the package knows no other source
    clean = images.repeat(draws, 1, 1, 1)
    mine = torch.cat([like_package(images, corruption, severity, draw) for draw in range(draws)])
    theirs = torch.cat([_drawn(images, corruption, severity, draw) for draw in range(draws)])
    means = [float(found.double().mean()) for found in (mine, theirs)]
    ratios = [psnr(found, clean) for found in (mine, theirs)]
    return row | {
        "mean_ratio": means[0] / means[1],
        "psnr": ratios[0],
        "psnr_package": ratios[1],
        "psnr_difference": ratios[0] - ratios[1],
    }


def _drawn(images: Tensor, corruption: str, severity: int, draw: int) -> Tensor:
    if corruption not in ("impulse_noise", "glass_blur"):
        return package(images, corruption, severity)
    from imagecorruptions import corrupt as corrupt_one

    rows = images.permute(0, 2, 3, 1).numpy()
    made = [corrupt_one(image, severity, corruption, seed=draw * len(images) + row) for row, image in enumerate(rows)]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


def agreement(draws: int) -> list[dict[str, Any]]:
    """A row a corruption and severity."""
    images = sample_pictures()
    return [compare(images, corruption, severity, draws) for corruption in ALL for severity in SEVERITIES]


def compared(draws: int) -> Measured:
    rows = agreement(draws)
    print(render_table(rows))
    headline = {
        "largest_mean_difference": max(row["mean_difference"] for row in rows if "mean_difference" in row),
        "largest_mean_ratio_error": max(abs(row["mean_ratio"] - 1) for row in rows if "mean_ratio" in row),
        "largest_psnr_difference": max(abs(row["psnr_difference"]) for row in rows if "psnr_difference" in row),
    }
    return Measured(name="corruptions_agreement", headline=headline, rows=rows)


def benchmark(given: argparse.Namespace) -> Measured:
    torch.set_num_threads(1)
    if given.agreement:
        return compared(given.draws)
    photos = open_images(given.data, split=given.split)[: given.images]
    images = torch.stack([to_tensor(photo.image).mul(255).round().to(torch.uint8) for photo in photos])
    arms: dict[str, Arm] = {"ours": ours}
    if find_spec("imagecorruptions") is not None:
        import cv2

        cv2.setNumThreads(1)
        arms["package"] = package
    print(describe(torch.device("cpu")))
    rows = speeds(images, arms, given.repeats)
    common = [row for row in rows if row["corruption"] in COMMON]
    sums = {name: sum(row[f"{name}_ms"] for row in common) * len(SEVERITIES) * SHOWN / 1000 for name in arms}
    headline: dict[str, Figure | float] = {"corruptions_seconds": sums["ours"]}
    if "package" in sums:
        headline["corruptions_speedup"] = sums["package"] / sums["ours"]
    print(render_table(rows))
    notes = [
        f"{len(images)} pictures of {images.shape[-1]} px; one thread",
        f"seconds are for {SHOWN} pictures in 75 copies on one core, scaled up from those {len(images)}",
        *(["the package runs its constants of 224 px at every size: its work is not ours"] if "package" in arms else []),
    ]
    return Measured(name="bench_corruptions", headline=headline, rows=rows, notes=notes)


def parser() -> argparse.ArgumentParser:
    made = options(__doc__, repeats=3, device=False)
    made.add_argument("--data", default="../shared/data/cifar10", help="square pictures of one size")
    made.add_argument("--split", default="test")
    made.add_argument("--images", type=int, default=300)
    made.add_argument("--agreement", action="store_true", help="compare pictures, not times")
    made.add_argument("--draws", type=int, default=4, help="of each picture, for random corruptions under --agreement")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    return run("corruptions", benchmark, parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
