"""How soon a denoiser of `tiny-imagenet-64` learns words, by where it reads them, what its loss weighs and how fast it learns.

    python -m rediffuse.recipes.bundled.words --data DATA --digits MNIST --autoencoder RUNS/autoencoder --work RUNS/words --out results

Shows: by how much a wrong class name raises the loss on validation latents after a few thousand samples from random weights, at several
noises, for each variant; the noise and the pictures are the same under both names, so a small difference is seen soon. The learning rate
stays as it is after 100 steps; what is asked are averages of the last hundred or so weights. `--autoencoder` takes the bundled folder too.
Rows are kept in --work: a killed run goes on, and two with parts of `--variants` make them side by side, which the whole command reads.
Expected: at t = 700 a rise of .35 % where words are read at 16x16 and the fine loss stands alone, .07 % by the last recipe of the shipped
weights; at 850 and up all but *fine loss alone* have learned something. Time: 11 to 15 minutes a variant on one core with AVX2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rediffuse.concepts.prompts import TEMPLATES
from rediffuse.denoisers.precision import resolve_device
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import render_table, write_result
from rediffuse.evaluation.statistics import Interval, bootstrap
from rediffuse.progress import Bar, counted
from rediffuse.recipes import asked
from rediffuse.recipes.bundled.common import batches, tell
from rediffuse.recipes.bundled.latents import cache_key
from rediffuse.recipes.bundled.learner import Learner
from rediffuse.recipes.bundled.networks import Pair
from rediffuse.recipes.bundled.text_start import tell_classes_apart
from rediffuse.recipes.bundled.text_to_image import COARSE, Material, gather, objective, residual
from rediffuse.writing import write_json

TIMES = (500, 700, 850, 930)
"""sigma / alpha of .9, 2.0, 5.3 and 13: with less noise, a picture says what a word could."""
SHIFTS = (37, 74, 111)
"""A wrong name is that of the class so many places on."""
DECAY = 0.99
"""Of the averaged weights: some hundred steps."""
WARM_UP = 100  # steps
DECIDING = ("samples", "pictures", "batch", "rate", "seed", "variants")
"""Options that decide what is found."""

AT_16: Mapping[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
"""Words are read at 16x16 too, one level from the output, and not at 8x8 alone."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to build and train it. shape: what departs from `UNET`; coarse: weight of the coarse loss; rate: a factor of --rate."""

    shape: Mapping[str, Any] | None = None
    coarse: float = COARSE
    rate: float = 1.0


# "as trained" is the shape, loss and largest rate in which the shipped weights ended, from random weights and without their cosine.
VARIANTS: Mapping[str, Variant] = {
    "as trained": Variant(rate=0.35),
    "fine loss alone": Variant(coarse=0.0),
    "faster": Variant(),
    "coarse loss doubled": Variant(coarse=2 * COARSE),
    "words at 16x16": Variant(shape=AT_16),
    "words at 16x16, fine loss alone": Variant(shape=AT_16, coarse=0.0),
}


def learn(variant: Variant, material: Material, samples: int, batch: int, rate: float, seed: int, bar: Bar) -> tuple[Pair, float]:
    """From random weights; every variant sees the same pictures, captions, times and noise. Returns the averaged networks, and seconds."""
    tokenizer, where, began = material.captions.tokenizer, material.kept.device, time.monotonic()
    with torch.random.fork_rng(devices=[]):
        averaged = Pair(tokenizer, variant.shape).to(where)  # before the seed: the first import of a library may draw from the global state
        torch.manual_seed(seed)
        pair = Pair(tokenizer, variant.shape).to(where)
    pair.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tell_classes_apart(pair.text, material.captions, seed=seed)
    bar.stage("learning", samples)
    rate *= variant.rate
    learner = Learner(pair, torch.optim.AdamW(pair.parameters(), lr=rate, weight_decay=1e-3, betas=(0.9, 0.99)), DECAY)
    for rows in batches(len(material.latents.plain), batch, seed):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + learner.step)
        loss = objective(pair, *material.draw(rows, generator), material.kept, variant.coarse).mean()
        learner.learn(loss, rate * min(1.0, (learner.step + 1) / WARM_UP), clip=1.0)
        bar.report(learner.step * batch, samples)
        if learner.step * batch >= samples:
            break
    learner.ema.copy_to(averaged)
    return averaged.eval(), time.monotonic() - began


@torch.no_grad()
def worth_of_words(pair: Pair, material: Material, count: int, seed: int) -> dict[int, Interval]:
    """By which share a wrong name raises the loss of the fine kind, at each of `TIMES`; intervals are over pictures."""
    where, names = material.kept.device, material.captions.words[:-1]  # the last is the digit
    generator, found = torch.Generator().manual_seed(seed), {}
    chosen = torch.randperm(len(material.labels), generator=generator)[:count]
    for t in TIMES:
        right, wrong = [], []
        for rows in chosen.split(64):
            x0, noise = material.check.plain[rows].float(), torch.randn(len(rows), *material.check.plain.shape[1:], generator=generator)
            x0, noise, times = x0.to(where), noise.to(where), torch.full((len(rows),), t, device=where)
            errors = [
                _errors(pair, x0, _named(material, names, rows, shift).to(where), times, noise, material.kept) for shift in (0, *SHIFTS)
            ]
            right.append(errors[0])
            wrong.append(torch.stack(errors[1:]).mean(0))
        rise = torch.cat(wrong) - torch.cat(right)
        found[t] = bootstrap(np.asarray((rise / torch.cat(right).mean()).double().cpu())[None], None)
    return found


def _errors(pair: Pair, x0: Tensor, ids: Tensor, t: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    return residual(pair, x0, ids, t, noise, kept).square().mean((1, 2, 3))


def _named(material: Material, names: list[list[str]], rows: Tensor, shift: int) -> Tensor:
    words = [names[(int(material.labels[row]) + shift) % len(names)][0] for row in rows]
    return torch.stack([material.captions.ids(TEMPLATES[0].format(word)) for word in words])


def rows_of(given: argparse.Namespace, material: Material) -> list[dict[str, Any]]:
    """One row a variant; those that lie in --work are read."""
    rows = []
    for name in given.variants:
        path = given.work / f"{key_of(VARIANTS[name], given, material)}.json"
        if not path.exists():
            write_json(path, row_of(name, given, material))
        row = {"variant": name, **json.loads(path.read_text(encoding="utf-8"))}
        print(row, flush=True)
        rows.append(row)
    return rows


def key_of(variant: Variant, given: argparse.Namespace, material: Material) -> str:
    """What a row follows from, in sixteen digits."""
    told = [asdict(variant), TIMES, SHIFTS, given.samples, given.pictures, given.batch, given.rate, given.seed]
    said = json.dumps([told, cache_key(material.vae, material.basis)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def row_of(name: str, given: argparse.Namespace, material: Material) -> dict[str, Any]:
    """Train and judge a variant."""
    print(f"{name}: telling classes apart, then {counted(given.samples, 'sample')}", flush=True)
    with Bar() as bar:
        pair, seconds = learn(VARIANTS[name], material, given.samples, given.batch, given.rate, given.seed, bar)
    row: dict[str, Any] = {"samples": given.samples, "seconds": seconds}
    row |= {"million_weights": sum(weight.numel() for weight in pair.unet.parameters()) / 1e6}
    for t, found in worth_of_words(pair, material, given.pictures, seed=1).items():
        row |= {f"t_{t}": found.value, f"t_{t}_low": found.low, f"t_{t}_high": found.high}
    return row


def options() -> argparse.ArgumentParser:
    """What the recipe can be told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder tiny-imagenet-base")
    parser.add_argument("--digits", type=Path, required=True, help="folder mnist-5k")
    parser.add_argument("--autoencoder", type=Path, required=True, help="out folder of the autoencoder's trainer, or an exported pipeline")
    parser.add_argument("--work", type=Path, required=True, help="folder of the latents, which are made once")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--samples", type=int, default=4096, help="that each learns from")
    parser.add_argument("--pictures", type=int, default=128, help="validation pictures that judge")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results"))
    return parser


def main(arguments: list[str] | None = None) -> None:
    parser = options()
    given = parser.parse_args(arguments)
    command = module_command("rediffuse.recipes.bundled.words", sys.argv[1:] if arguments is None else arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    material = gather(given.data, given.digits, given.autoencoder, given.work, None, None, resolve_device(given.device))
    rows = rows_of(given, material)
    print(render_table(rows))
    departed = asked.departures(given, parser, DECIDING)
    notes = [
        *asked.notes_of(departed),
        "by how much a wrong class name raises the loss, as a share of it; one training of each variant; seconds are those of training",
    ]
    name = asked.named("words_tiny_imagenet_64", departed)
    headline = {
        f"t_850_{row['variant'].replace(' ', '_').replace(',', '')}": Interval(
            value=row["t_850"], low=row["t_850_low"], high=row["t_850_high"]
        )
        for row in rows
    }
    seconds = sum(row["seconds"] for row in rows)
    print(f"wrote {write_result(name, headline, rows, seconds, command=command, folder=given.out, notes=notes)}")


if __name__ == "__main__":
    tell(main)
