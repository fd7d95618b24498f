"""How well a word is learned, by budget: copies recognised under the learned word beside copies under the class's own name.

    python -m rediffuse.recipes.learning_budget --data ../shared/data --recogniser NET

Shows: on known-20, classes that the generator knows by name, how many training samples a word must cost until its copies are as good as
those under the name, and what the start is worth (`the` against the nearest known word). Its photos are those of the first seeds of
`compare_known20`, training ones. The recogniser is a transformers folder trained on the real base classes, which include these 20:
`bundled.features --which recogniser --out RUNS/recogniser.training`, then `bundled.export recogniser --features
RUNS/recogniser.training --out RUNS/recogniser`, both with `--data ../shared/data/tiny-imagenet-base --known
../shared/data/tiny-imagenet-known`.
Expected (two seeds, 80 photos each): copies under the name are recognised in .29, under words from the nearest known one in .28 after 100,
.27 after 200 and .28 after 400 samples, under words from `the` in .26 to .27; so the budget of `fast`, 200 from the nearest, lies where the
curve is flat, and a start near the class is worth about a point. What is recognised of edits up to strength .5 hardly depends on the word.
Time and hardware: one hour of one shared core with AVX512-BF16, 40 seconds to 9 minutes a row.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from rediffuse.concepts.recipes import RECIPES, InversionRecipe
from rediffuse.concepts.textual_inversion import learn
from rediffuse.data.images import to_tensor
from rediffuse.data.open import open_images
from rediffuse.data.splits import few_shot
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.evaluation.few_shot.generator import limits_of
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import Figure, write_result
from rediffuse.evaluation.statistics import MIN_SEEDS, Interval, t_interval
from rediffuse.methods.da_fusion import DAFusion
from rediffuse.methods.editing import EditingMethod
from rediffuse.methods.real_guidance import RealGuidance
from rediffuse.recipes import asked
from rediffuse.recipes.bundled.common import tell
from rediffuse.training.classifier import Classifier

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
DECIDING = ("model", "shots", "samples", "starts")
"""Options that decide what is found, beside the seeds."""


def recognised(net: Classifier, images: Tensor, names: Sequence[str]) -> float:
    """Share of pictures (N, 3, H, W) that the net calls by their name."""
    truth = torch.tensor([net.classes.index(name) for name in names])
    return float((net.predict(images).argmax(-1) == truth).double().mean())


def copies(method: EditingMethod, photos: Tensor, labels: Tensor, strength: float, seed: int) -> Tensor:
    """One copy of each photo at a strength; the noise is a function of the seed alone, the same for every method."""
    draw = method.draw(len(photos), torch.Generator().manual_seed(seed), labels)
    return method.apply(photos, replace(draw, strength=torch.full((len(photos),), strength)))


def measure(method: EditingMethod, shots: ImageSet, net: Classifier, seed: int) -> dict[str, float]:
    """Recognised share by strength, and its mean."""
    photos = torch.stack([to_tensor(example.image) for example in shots])
    labels = torch.tensor([label for label in shots.labels if label is not None])
    names = [shots.classes[label] for label in labels.tolist()]
    by_strength = {
        f"recognised_{strength:g}": recognised(net, copies(method, photos, labels, strength, seed), names) for strength in STRENGTHS
    }
    return {**by_strength, "recognised": sum(by_strength.values()) / len(by_strength), "photos": recognised(net, photos, names)}


def rows_of(model: Denoiser, pool: ImageSet, net: Classifier, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a seed and way: by name, and for each start and budget by learned word."""
    rows: list[dict[str, Any]] = []

    def note(**row: Any) -> None:
        rows.append(row)
        print(row, flush=True)

    for seed in range(given.seeds):
        shots = few_shot(pool, given.shots, seed)
        note(seed=seed, way="name", start="", samples=0, seconds=0.0, **measure(RealGuidance(model, shots.classes), shots, net, seed))
        for start in given.starts:
            for samples in given.samples:
                began = time.monotonic()
                words = learn(shots, model, recipe=budget(start, samples), seed=seed)
                spent = time.monotonic() - began
                note(
                    seed=seed, way="word", start=start, samples=samples, seconds=spent, **measure(DAFusion(model, words), shots, net, seed)
                )
    return rows


def budget(start: str, samples: int) -> InversionRecipe:
    """The default recipe from another start with another number of samples a class."""
    return replace(RECIPES["fast"], start=start).with_samples(samples)


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """By name, and each start and budget, over seeds; an interval where there are enough of them to say something."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        key = "by_name" if row["way"] == "name" else f"by_word_{row['start']}_{row['samples']}"
        groups.setdefault(key, []).append(row["recognised"])
    return {
        key: Figure.of(t_interval(values) if len(values) >= MIN_SEEDS else Interval(value=fmean(values))) for key, values in groups.items()
    }


def notes_of(given: argparse.Namespace) -> list[str]:
    """What limits the figures."""
    photos = given.shots * 20
    few = [f"{given.seeds} seed{'' if given.seeds == 1 else 's'}: too few for intervals."] if given.seeds < MIN_SEEDS else []
    return [f"{photos} photos a seed, one copy of each at every strength; {given.shots} shots.", *few]


def options() -> argparse.ArgumentParser:
    """What the recipe can be told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="tiny-imagenet-64")
    parser.add_argument("--recogniser", required=True)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--starts", nargs="+", default=["nearest", "the"])
    parser.add_argument("--out", type=Path, default=Path("results"))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options()
    given = parser.parse_args(arguments)
    command = module_command("rediffuse.recipes.learning_budget", sys.argv[1:] if arguments is None else arguments)
    began = time.monotonic()
    pool = open_images(given.data / "tiny-imagenet-known", split="train")
    model = load(given.model)
    limits = limits_of(model)
    rows = rows_of(model, pool, Classifier.load(given.recogniser), given)
    seconds = time.monotonic() - began
    departed = asked.departures(given, parser, DECIDING, ("seeds",))
    notes = [*asked.notes_of(departed), *limits, *notes_of(given)]
    name = asked.named("learning_budget", departed)
    written = write_result(name, headline(rows), rows, seconds, command=command, folder=given.out, notes=notes)
    print(f"wrote {written}")


if __name__ == "__main__":
    tell(main)
