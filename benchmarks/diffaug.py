"""What DiffAug costs: the transform against the published class, and a training step against a plain one.

    python -m benchmarks.diffaug --model FOLDER --out results

Transform: images a second of `DiffAug` and of the published class, written from its description: the network not compiled, its trunk in
float16 on an accelerator and in float32 elsewhere, every table in numpy and looked up on the host at each call, posterior mean and
variance and a second noise computed and thrown away. Before a clock starts both are given the same times and noise in float32, and their
views must agree. share_of_limit is that of the fastest square matrix product measured in the same numbers.
Step: seconds of a training step of a classifier with DiffAug on all of the batch, on a quarter, and with a bank at several rates, as a
multiple of a plain step of the same batch and of a plain step with as many classifier samples. Arms take turns; medians of the ratios.
A bank that was all made before costs its making too, which rows of their own add: that of the recipe `diffaug_cheaper`.
Expected: results/bench_diffaug.json. Time: 1 to 6 minutes on 2 cores. With an accelerator `--model adm-256` takes ADM's 256-pixel
architecture with random weights at 224 pixels: 1,713 GFLOP a call, so at most 461 images a second at 790 TFLOP/s; share_of_461 says of
which part.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import Measured, options, ratio, run, turns
from benchmarks.machine import describe, matmul_peak
from benchmarks.published_diffaug import PublishedDiffAug, random_adm
from torch import Tensor

from rediffuse.denoisers.load import load
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.precision import resolve_device
from rediffuse.errors import ModelError
from rediffuse.evaluation.results import Figure, render_table
from rediffuse.methods.bank import Bank
from rediffuse.methods.diffaug import DiffAug, make_noise
from rediffuse.progress import counted
from rediffuse.recipes.robust.bench import DRAWS, EPOCHS
from rediffuse.recipes.robust.nets import NETS, open_net
from rediffuse.training.augment import CropViews
from rediffuse.training.cost import denoiser_operations
from rediffuse.training.loop import Training
from rediffuse.training.objectives import Extra, Objective, plain
from rediffuse.training.pool import Pool
from rediffuse.training.presets import usual

SAME_MATHS = 2e-3  # of [0, 1]: a float32 trunk against itself in another memory layout, enlarged by sigma / alpha
RATES = (0.25, 0.1, 0.05)
PLAIN = "plain"
ADM = "adm-256"
CHEAPEST = "bank, 5 % anew, on a quarter"
MADE_BEFORE = {"bank, all made before": (1, 9), "bank, all made before, on a quarter": (1,)}
"""Step -> trainings that pay for one bank: one alone, and the arms and seeds of `diffaug_cifar10` that look at it, at whole batches."""
ADM_LIMIT = 461.0
"""Images a second of ADM's 256-pixel network at 224 pixels, at 790 TFLOP/s."""
STEP_RATIOS = {"step_ratio_full": "DiffAug", "step_ratio_bank": CHEAPEST}
"""Key of the result -> kind of step, against a plain one of the same batch."""
Arms = dict[str, tuple[Callable[[], object], float]]
"""What is called, and how many samples a classifier sees of a picture in it."""


def transform_arms(
    fast: PixelDenoiser, exact: PixelDenoiser, published_one: PixelDenoiser, images: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """Views of these pictures by each way, newly drawn at every call."""
    ours, published = DiffAug(fast), PublishedDiffAug(published_one)
    return {
        "DiffAug": lambda: ours(images),
        "DiffAug, float32": partial(DiffAug(exact), images),
        "published class": lambda: published(images),
    }


def check_same(exact: PixelDenoiser, images: Tensor) -> float:
    """Largest difference between our views and the published class's, same times, same noise. Raises ModelError where they differ."""
    method, published = DiffAug(exact), PublishedDiffAug(exact)
    draw = method.draw(len(images), torch.Generator().manual_seed(0))
    noise = make_noise(draw, images.shape[1:], images.device)
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        difference = float((method.apply(images, draw) - published.view(images, draw.t, noise)).abs().max())
    if difference > SAME_MATHS:
        raise ModelError(f"the published class and ours differ by {difference:.2g} of the same noise; nothing was timed")
    return difference


def measure_transform(arms: Mapping[str, Callable[[], Tensor]], count: int, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    seconds = in_turns(arms, repeats, device)
    return [{"arm": name, "images_a_second": count / statistics.median(own), "all_seconds": own} for name, own in seconds.items()]


def objectives(denoiser: PixelDenoiser, images: Tensor, labels: Tensor) -> dict[str, tuple[Objective, float]]:
    """The kinds of step, and how many samples the classifier sees of a picture."""

    def with_bank(rate: float, share: float = 1.0) -> Objective:
        bank = Bank(DiffAug(denoiser), rate, capacity=len(images), warmup=0)
        bank.source = "original"  # so that filling it calls no denoiser
        for part in torch.arange(len(images)).split(256):
            bank.add(images[part].float() / 255, labels[part])
        bank.source = "denoised"
        return Objective(extras=(Extra(method=bank, share=share),))

    kinds = {
        PLAIN: plain(),
        "plain, two views": plain(2),
        "DiffAug": Objective(extras=(Extra(method=DiffAug(denoiser)),)),
        "DiffAug on a quarter": Objective(extras=(Extra(method=DiffAug(denoiser), share=0.25),)),
        "plain, a quarter twice": Objective(extras=(Extra(source="independent", share=0.25),)),
    }
    kinds |= {f"bank, {100 * rate:g} % anew": with_bank(rate) for rate in RATES}
    kinds["bank, 25 % anew, on a quarter"] = with_bank(0.25, 0.25)
    kinds[CHEAPEST] = with_bank(0.05, 0.25)
    kinds["bank, all made before"] = with_bank(0.0)
    kinds["bank, all made before, on a quarter"] = with_bank(0.0, 0.25)
    return {name: (objective, objective.samples) for name, objective in kinds.items()}


def step_arms(
    net: str, denoiser: PixelDenoiser, batch: int, pictures: int, device: torch.device
) -> dict[str, tuple[Callable[[], object], float]]:
    """A training step of each kind, on pictures of noise: their content changes no cost."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (pictures, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (pictures,), generator=generator)
    pool = Pool.build(images, labels, None, [[]] * pictures, 0.0)
    settings, procedure = usual("cifar-resnet")
    settings = replace(settings, batch=batch, steps=10_000)
    arms: Arms = {}
    for name, (objective, samples) in objectives(denoiser, images, labels).items():
        classifier = open_net(net, [str(k) for k in range(10)], seed=0).to(device)
        training = Training(classifier, pool, settings, CropViews(), objective, procedure, (32, 32), 0)
        arms[name] = (_Steps(training), samples)
    return arms


class _Steps:
    """Calls one training step after another."""

    def __init__(self, training: Training) -> None:
        self.training, self.done = training, 0

    def __call__(self) -> None:
        self.training.step(self.done)
        self.done += 1


def in_turns(arms: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call; each arm was called once before."""
    for call in arms.values():
        call()
    return turns(arms, repeats, device)[0]


def measure_steps(arms: Arms, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    seconds = in_turns({name: call for name, (call, _) in arms.items()}, repeats, device)
    alike = {1.0: PLAIN, 2.0: "plain, two views", 1.25: "plain, a quarter twice"}
    rows = []
    for name, (_, samples) in arms.items():
        batch, same = ratio(seconds[name], seconds[PLAIN]), ratio(seconds[name], seconds[alike[samples]])
        rows.append(
            {
                "step": name,
                "samples": samples,
                "seconds": statistics.median(seconds[name]),
                "to_plain_batch": batch.value,
                "to_plain_samples": same.value,
                "to_plain_samples_low": same.low,
                "to_plain_samples_high": same.high,
                "all_seconds": seconds[name],
            }
        )
    return rows


def with_making(rows: Sequence[dict[str, Any]], views_a_second: float, batch: int) -> list[dict[str, Any]]:
    """Steps on banks that were made before, with what making them adds to each: draws / epochs calls of the denoiser a picture."""
    found, made = [], batch * DRAWS / EPOCHS / views_a_second
    by_name = {row["step"]: row for row in rows}
    for name, payers in MADE_BEFORE.items():
        for count in payers:
            row, seconds = by_name[name], by_name[name]["seconds"] + made / count
            longer = seconds / row["seconds"]
            scaled = {key: row[key] * longer for key in row if key.startswith("to_plain")}
            paid = f"{name}, its making paid by {counted(count, 'training')}"
            found.append({**row, "step": paid, "seconds": seconds, "all_seconds": [], **scaled})
    return found


def benchmark(given: argparse.Namespace) -> Measured:
    device = resolve_device(given.device)
    print(describe(device))
    fast, exact, published = (open_model(given.model, device, numbers) for numbers in ("auto", "float32", published_numbers(device)))
    side = exact.size or 32
    images = torch.rand(given.images, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    differ = check_same(exact, images[:8])
    views = measure_transform(transform_arms(fast, exact, published, images), given.images, given.repeats, device)
    flops = denoiser_operations(exact, (side, side))
    seconds = {row["arm"]: row["all_seconds"] for row in views}
    headline = {
        "images_per_second": Figure(value=views[0]["images_a_second"]),
        "speedup_over_published": ratio(seconds["published class"], seconds["DiffAug"]),
        "speedup_in_float32": ratio(seconds["published class"], seconds["DiffAug, float32"]),
        "share_of_limit": Figure(value=views[0]["images_a_second"] * flops / matmul_peak(fast.dtype, device)),
        "largest_difference": Figure(value=differ),
    }
    if given.model == ADM:
        headline["share_of_461"] = Figure(value=views[0]["images_a_second"] / ADM_LIMIT)
    print(render_table(views, ["arm", "images_a_second"]))
    steps: list[dict[str, Any]] = []
    if side == 32:
        steps = measure_steps(step_arms(given.net, fast, given.batch, given.pictures, device), given.repeats, device)
        steps += with_making(steps, views[0]["images_a_second"], given.batch)
        print(render_table(steps, ["step", "samples", "seconds", "to_plain_batch", "to_plain_samples"]))
        times = {row["step"]: row["all_seconds"] for row in steps}
        headline |= {key: ratio(times[name], times[PLAIN]) for key, name in STEP_RATIOS.items()}
    notes = [
        f"{flops / 1e9:.3g} GFLOP a denoiser call at {side} pixels",
        f"classifier {given.net}, batch {given.batch}",
        f"making a bank: {DRAWS} views a picture, over {EPOCHS:g} epochs; computed from the rate of the transform, not timed",
    ]
    name = "bench_diffaug" if side == 32 else f"bench_diffaug_{Path(given.model).name}"
    return Measured(name=name, headline=headline, rows=[*views, *steps], device=str(device), notes=notes)


def published_numbers(device: torch.device) -> str:
    """Of the published trunk: float16 with an accelerator."""
    return "float32" if device.type == "cpu" else "float16"


def open_model(name: str, device: torch.device, numbers: str) -> PixelDenoiser:
    """The denoiser with its trunk in these numbers."""
    if name == ADM:
        return random_adm(device, numbers)
    denoiser = load(name, device=device, dtype=numbers)
    if not isinstance(denoiser, PixelDenoiser):
        raise ModelError(f"{name} is no pixel model; DiffAug needs one")
    return denoiser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, repeats=9)
    parser.add_argument("--model", default="cifar10-32", help="bundled name, folder or file of a pixel model, or adm-256")
    parser.add_argument("--net", choices=NETS, default=NETS[0], help="the classifier that learns")
    parser.add_argument("--images", type=int, default=64, help="a call of the transform")
    parser.add_argument("--batch", type=int, default=128, help="pictures a training step")
    parser.add_argument("--pictures", type=int, default=1024, help="in the training set and the bank")
    return run("diffaug", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
