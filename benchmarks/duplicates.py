"""What the search for near-duplicates finds of pictures that were changed, and what it finds where there is nothing to find.

    python -m benchmarks.duplicates --data ../shared/data/tiny-imagenet-base --split validation

Every picture is changed in each way, and the changed ones are searched among the pictures: the share whose source is found with the
default bounds, and the share whose nearest neighbour, by features alone (rms=1), is the source. False pairs: those that are found between
two halves of the set that share no picture, and between two splits of a set of flat pictures. Two pictures of each class. Time: two
minutes of one core. No clock decides anything here.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Measured, options, run
from PIL import Image, ImageOps

from rediffuse.data.open import open_images
from rediffuse.data.splits import few_shot
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError
from rediffuse.evaluation.fidelity.duplicates import COSINE, NEIGHBOURS, RMS, SHARE, near_duplicates
from rediffuse.evaluation.results import render_table
from rediffuse.evaluation.statistics import share


def jpeg(image: Image.Image) -> Image.Image:
    """Written at quality 50 and read again."""
    held = io.BytesIO()
    image.save(held, "JPEG", quality=50)
    return Image.open(io.BytesIO(held.getvalue())).convert("RGB")


def cut(image: Image.Image, part: int) -> Image.Image:
    """A 64th, times `part`, cut off each side, and enlarged again."""
    left, top = (round(side * part / 64) for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top)).resize(image.size, Image.Resampling.BICUBIC)


CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG at quality 50": jpeg,
    "mirrored": ImageOps.mirror,
    "1 of 64 pixels cut off each side": lambda image: cut(image, 1),
    "halved": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "4 of 64 pixels cut off each side": lambda image: cut(image, 4),
}


def changed(images: ImageSet, change: Callable[[Image.Image], Image.Image]) -> ImageSet:
    """The set with every picture changed, under the same ids."""
    return ImageSet.of([replace(example, image=change(example.image)) for example in images], classes=images.classes)


def row_of(name: str, images: ImageSet) -> dict[str, Any]:
    """What is found of pictures that were changed in one way."""
    others = changed(images, CHANGES[name])
    found = {pair.first for pair in near_duplicates(others, images) if pair.first == pair.second}
    best: dict[str, tuple[float, str]] = {}
    for pair in near_duplicates(others, images, rms=1, share=math.inf, cosine=-1):
        best[pair.first] = max(best.get(pair.first, (-2.0, "")), (pair.cosine, pair.second))
    right = np.array([identity in found for identity in images.ids])
    interval = share(right)
    nearest = sum(best[identity][1] == identity for identity in images.ids) / len(images)
    return {"change": name, "found": interval.value, "low": interval.low, "high": interval.high, "nearest_is_the_source": nearest}


def benchmark(given: argparse.Namespace) -> Measured:
    if given.shots < 2 or given.shots % 2:
        raise ConfigError(f"shots must be an even number, at least 2, so that the set has two halves; got {given.shots}")
    images = few_shot(open_images(given.data, split=given.split), given.shots, 0)
    rows = [row_of(name, images) for name in CHANGES]
    print(render_table(rows))
    halves = [images.subset(range(start, len(images), 2)) for start in (0, 1)]
    false = len(near_duplicates(*halves))
    flat = [
        few_shot(open_images(given.flat, split=split), shots, 0)
        for split, shots in (("train", given.flat_shots), ("test", 2 * given.flat_shots))
    ]
    lost = len(near_duplicates(*flat))
    unshared = len(near_duplicates(*flat, share=math.inf))
    headline = {f"found_{row['change'].split()[0].lower()}": row["found"] for row in rows if not row["change"][0].isdigit()}
    notes = [
        f"{len(images)} pictures, each changed in every way; intervals over pictures",
        f"cosine {COSINE:g}, rms {RMS:g}, share {SHARE:g}, {NEIGHBOURS} neighbours",
        f"{false} pairs between two halves of the set",
        f"{lost} pairs between {len(flat[0])} and {len(flat[1])} pictures of {given.flat.name}, which are flat; {unshared} by rms alone",
    ]
    false_ones = {"false_pairs": float(false), "false_pairs_flat": float(lost), "false_pairs_flat_by_rms": float(unshared)}
    return Measured(name="bench_duplicates", headline={**headline, **false_ones}, rows=rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, device=False)
    parser.add_argument("--data", default="../shared/data/tiny-imagenet-base")
    parser.add_argument("--split", help="of a set that has several")
    parser.add_argument("--flat-shots", type=int, default=15, help="pictures of each class of its train split; of test twice as many")
    parser.add_argument("--flat", type=Path, default=Path("../shared/data/eurosat"), help="a set of flat pictures with train and test")
    parser.add_argument("--shots", type=int, default=2, help="pictures of each class")
    return run("duplicates", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
