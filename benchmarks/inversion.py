"""What it brings to learn the words of all classes together.

    python -m benchmarks.inversion --model tiny-imagenet-64 --data digits --classes 10 --out results

Arms, each with the same photos, steps and samples of a class:
    together   `learn` on all classes: their samples share denoiser calls.
    alone      `learn` on one class after another: the same maths (the largest difference of a vector is printed), small calls.
    published  the loop of the DA-Fusion scripts, written from its description: one class after another, float32, photos resized and encoded
               in every step, gradient and AdamW state for the whole embedding table, restored after each step but for the new row.
               The model stays loaded between classes, in its favour.
One process; the arms take turns, each repeat begins with another, and the median ratio counts.
Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from benchmarks.common import Measured, options, ratio, run, turns
from benchmarks.machine import describe
from torch import Tensor

from rediffuse.concepts.prompts import TEMPLATES
from rediffuse.concepts.recipes import InversionRecipe, find_recipe
from rediffuse.concepts.textual_inversion import default_batch, learn
from rediffuse.data.geometry import Fit
from rediffuse.data.open import open_images
from rediffuse.data.splits import few_shot
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Condition
from rediffuse.denoisers.load import load
from rediffuse.evaluation.results import render_table

Words = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """run: (photos, recipe) -> the words; call: samples in one denoiser call; numbers: of the trunk."""

    run: Callable[[ImageSet, InversionRecipe], Words]
    call: int
    numbers: str


def together(model: Any, photos: ImageSet, recipe: InversionRecipe, batch: int | None = None) -> Words:
    return dict(learn(photos, model, recipe=recipe, batch=batch, progress=False).words)


def alone(model: Any, photos: ImageSet, recipe: InversionRecipe) -> Words:
    words: dict[str, Tensor] = {}
    for name in photos.classes:
        words.update(together(model, of_class(photos, name), recipe))
    return words


def published(model: Any, photos: ImageSet, recipe: InversionRecipe) -> Words:
    """model: a float32 StableDenoiser."""
    return {name: _published_word(model, of_class(photos, name), recipe) for name in photos.classes}


def of_class(photos: ImageSet, name: str) -> ImageSet:
    """The photos of one class, as a set that knows no other."""
    label = photos.classes.index(name)
    mine = (example for example in photos if example.label == label)
    return ImageSet.of([replace(example, label=0) for example in mine], classes=(name,), flips=photos.flips)


def _published_word(model: Any, photos: ImageSet, recipe: InversionRecipe) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    encoder, tokenizer = copy.deepcopy(model.text_encoder), model.tokenizer
    encoder.resize_token_embeddings(len(tokenizer) + 1, mean_resizing=False)
    table, new = encoder.get_input_embeddings().weight, len(tokenizer)
    with torch.no_grad():
        table[new] = model.word_vectors("the").mean(0)
    kept = table.detach().clone()
    table.requires_grad_(True)
    optimizer = torch.optim.AdamW([table], lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay)
    fit = Fit(mode="squash", size=model.size, multiple_of=model.multiple_of)
    size, levels = recipe.batch_per_class, len(model.schedule)
    for _ in range(recipe.steps):
        rows = torch.randint(len(photos), (size,), generator=generator).tolist()
        images = torch.stack([fit.to_model(photos[row].image)[0] for row in rows]).to(model.device)
        with torch.no_grad():
            latents = model.encode(images, sample=True)
        ids = torch.stack([_ids(tokenizer, TEMPLATES[place], new) for place in torch.randint(27, (size,), generator=generator).tolist()])
        states = encoder(ids.to(model.device))[0]
        t = torch.randint(levels, (size,), generator=generator).to(model.device)
        noise = torch.randn(latents.shape, generator=generator).to(model.device)
        model.loss(latents, t, noise, Condition(embedding=states)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            table[:new] = kept[:new]
    return table[new : new + 1].detach().cpu()


def _ids(tokenizer: Any, template: str, new: int) -> Tensor:
    before, after = (tokenizer(part, add_special_tokens=False).input_ids for part in template.split("{}"))
    ids = [tokenizer.bos_token_id, *before, new, *after, tokenizer.eos_token_id]
    return torch.tensor(ids + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids)))


def measure(arms: Mapping[str, Arm], photos: ImageSet, recipe: InversionRecipe, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """A row an arm; seconds are the median over the repeats."""
    short = replace(recipe, steps=2)
    for arm in arms.values():
        arm.run(photos, short)  # what is done once in a process is not counted
    calls = {name: partial(arm.run, photos, recipe) for name, arm in arms.items()}
    seconds, words = turns(calls, repeats, device, tell=True)
    samples = len(photos.classes) * recipe.samples_per_class
    return [
        {
            "arm": name,
            "classes": len(photos.classes),
            "steps": recipe.steps,
            "samples": samples,
            "samples_a_call": arm.call,
            "numbers": arm.numbers,
            "seconds": statistics.median(seconds[name]),
            "samples_per_second": samples / statistics.median(seconds[name]),
            "all_seconds": seconds[name],
            "largest_difference": largest_difference(words["together"], words[name]) if name == "alone" else None,
        }
        for name, arm in arms.items()
    ]


def largest_difference(one: Words, two: Words) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def arms_of(model: Any, exact: Any, classes: int, recipe: InversionRecipe, batch: int | None) -> dict[str, Arm]:
    numbers = str(model.dtype).removeprefix("torch.")
    side = model.size // model.factor
    largest = batch or default_batch((model.channels, side, side), model.device)
    joint = classes * recipe.batch_per_class
    calls = -(-joint // largest)
    return {
        "together": Arm(run=partial(together, model, batch=batch), call=-(-joint // calls), numbers=numbers),
        "alone": Arm(run=partial(alone, model), call=recipe.batch_per_class, numbers=numbers),
        "published": Arm(run=partial(published, exact), call=recipe.batch_per_class, numbers="float32"),
    }


def benchmark(given: argparse.Namespace) -> Measured:
    model: Any = load(given.model, device=given.device)
    exact: Any = load(given.model, device=given.device, dtype="float32")
    # The choice of a start costs every arm the same and is no part of the comparison.
    recipe = replace(find_recipe(given.recipe), start="the")
    recipe = replace(recipe, steps=given.steps or recipe.steps)
    photos = few_shot(open_images(given.data, split="train"), given.shots, seed=0)
    known = photos.classes[: given.classes]
    photos = photos.subset([row for row, label in enumerate(photos.labels) if label is not None and label < len(known)]).with_classes(known)
    print(describe(model.device))
    rows = measure(arms_of(model, exact, len(known), recipe, given.batch), photos, recipe, given.repeats, model.device)
    seconds = {row["arm"]: row["all_seconds"] for row in rows}
    headline = {
        "speedup_joint": ratio(seconds["alone"], seconds["together"]),
        "speedup_over_published": ratio(seconds["published"], seconds["together"]),
    }
    print(render_table(rows, ["arm", "samples_a_call", "numbers", "seconds", "samples_per_second", "largest_difference"]))
    return Measured(name="bench_inversion", headline=headline, rows=rows, device=str(model.device))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, repeats=3)
    parser.add_argument("--model", default="tiny-imagenet-64", help="bundled name or Stable Diffusion folder")
    parser.add_argument("--data", default="digits", help="photos: digits, or anything that rediffuse opens")
    parser.add_argument("--classes", type=int, default=10, help="the first so many")
    parser.add_argument("--shots", type=int, default=4, help="photos of a class")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument("--batch", type=int, help="most samples in a call of `together`")
    return run("inversion", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
