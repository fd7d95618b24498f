"""How many steps a redrawing needs: the same noise in 8, 12 and 24 steps against 48, by strength.

    python -m rediffuse.recipes.sampling_steps --data ../shared/data --recogniser NET --out results

Shows: for validation photos of the 170 base classes, redrawn under their class's name with the default solver and guidance, how far the
pictures of few steps are from those of 48 (PSNR), and how often a recogniser of the real base classes names them rightly. The default of 12
steps comes from here; no set that a comparison reports takes part.
Expected: 45 dB and more at strengths up to .75 with 12 steps; 25 dB at strength 1, where the first step leaves pure noise, and as
many recognised (results/sampling_steps.json). Of other models it says nothing.
Time: 55 minutes of one core with AVX512-BF16, beside other work.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.data.images import to_tensor
from rediffuse.data.open import open_images
from rediffuse.data.splits import few_shot
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.evaluation.few_shot.generator import limits_of
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.methods.real_guidance import RealGuidance
from rediffuse.recipes import asked
from rediffuse.recipes.bundled.common import tell
from rediffuse.recipes.learning_budget import STRENGTHS, copies, recognised
from rediffuse.training.classifier import Classifier

SET = "tiny-imagenet-base"
DECIDING = ("model", "shots", "steps", "reference")
"""Options that decide what is found."""


def psnr(images: Tensor, reference: Tensor) -> float:
    """Mean over pictures (N, 3, H, W) in [0, 1], in dB; infinite where two are equal."""
    squared = (images - reference).square().flatten(1).mean(1).double()
    return float((-10 * squared.log10()).mean())


def rows_of(model: Denoiser, shots: ImageSet, net: Classifier, steps: Sequence[int], reference: int) -> list[dict[str, Any]]:
    """One row a number of steps and strength; the noise of a picture is the same in all."""
    photos = torch.stack([to_tensor(example.image) for example in shots])
    labels = torch.tensor([label for label in shots.labels if label is not None])
    names = [shots.classes[label] for label in labels.tolist()]
    method = RealGuidance(model, shots.classes)
    rows: list[dict[str, Any]] = []

    def make(count: int, strength: float) -> tuple[Tensor, float]:
        began = time.monotonic()
        return copies(_in_steps(method, count), photos, labels, strength, seed=0), time.monotonic() - began

    for strength in STRENGTHS:
        wanted = make(reference, strength)
        for count in dict.fromkeys((*steps, reference)):
            made, seconds = wanted if count == reference else make(count, strength)
            row = {"steps": count, "strength": strength, "psnr_to_reference": None if count == reference else psnr(made, wanted[0])}
            row |= {"recognised": recognised(net, made, names), "contrast": float(made.std()), "seconds": seconds}
            rows.append(row)
            print(row, flush=True)
    return rows


def _in_steps(method: RealGuidance, steps: int) -> RealGuidance:
    return RealGuidance.from_settings(method.model, {**method.settings(), "steps": steps})


def options() -> argparse.ArgumentParser:
    """What the recipe can be told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="tiny-imagenet-64")
    parser.add_argument("--recogniser", required=True)
    parser.add_argument("--shots", type=int, default=1, help="photos of each class")
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 12, 24])
    parser.add_argument("--reference", type=int, default=48)
    parser.add_argument("--out", type=Path, default=Path("results"))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options()
    given = parser.parse_args(arguments)
    command = module_command("rediffuse.recipes.sampling_steps", sys.argv[1:] if arguments is None else arguments)
    began = time.monotonic()
    shots = few_shot(open_images(given.data / SET, split="validation"), given.shots, 0)
    model = load(given.model)
    limits = limits_of(model)
    rows = rows_of(model, shots, Classifier.load(given.recogniser), given.steps, given.reference)
    headline = {
        f"psnr_{row['steps']}_steps_{row['strength']:g}": row["psnr_to_reference"] for row in rows if row["steps"] != given.reference
    }
    print(render_table(rows))
    photos = f"{len(shots)} validation photos of {SET}: pictures that the generator has not seen, of classes that it knows."
    seconds = time.monotonic() - began
    departed = asked.departures(given, parser, DECIDING)
    notes = [*asked.notes_of(departed), *limits, photos]
    name = asked.named("sampling_steps", departed)
    written = write_result(name, headline, rows, seconds, command=command, folder=given.out, notes=notes)
    print(f"wrote {written}")


if __name__ == "__main__":
    tell(main)
