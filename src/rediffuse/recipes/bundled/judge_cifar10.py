"""What `cifar10-32` can do, in numbers: the figures of its model card.

    python -m rediffuse.recipes.bundled.judge_cifar10 --model FOLDER --features OTHER_NET --data DATA --out CARD

Shows: PSNR of x0_hat by noise level on held-out pictures, beside the noisy picture itself and beside the Wiener filter of the training
pictures; FID-like distance of DDIM samples to training pictures on the features of another net, and of real pictures among themselves;
a sheet of samples and a sheet of pictures clean, filtered and denoised. Expected: 1.5 dB and more above the filter up to sigma .5.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.base import Denoiser, NoiseSchedule
from rediffuse.denoisers.load import load
from rediffuse.denoisers.wiener import WienerDenoiser
from rediffuse.evaluation.fidelity.moments import frechet
from rediffuse.recipes.bundled.cifar10 import draw_samples
from rediffuse.recipes.bundled.common import save_grid, signed, tell
from rediffuse.recipes.bundled.draws import floats, to_bytes
from rediffuse.recipes.bundled.judge import describe
from rediffuse.recipes.cifar10_split import read_split

# Of t = 50, 100, .., 450 at 224 pixels, scaled to 32, and what training draws beyond.
SIGMAS = (0.025, 0.049, 0.075, 0.103, 0.137, 0.177, 0.227, 0.292, 0.377, 0.5, 1.0, 2.0, 5.0)
SHEET = (0.075, 0.177, 0.377, 1.0, 2.0)
CHUNK = 250


def level(schedule: NoiseSchedule, sigma: float) -> int:
    """The index whose sigma / alpha is nearest."""
    return int((schedule.ratio - sigma).abs().argmin())


@torch.no_grad()
def views(images: Tensor, t: int, schedule: NoiseSchedule, belief: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> Tensor:
    """What `belief(x_t, t)` makes of these pictures, clamped. images: (N, 3, S, S) uint8. Returns (N, 3, S, S) in [0, 1]."""
    generator, out = torch.Generator().manual_seed(seed * 1_000_003 + t), []
    for chunk in images.split(CHUNK):
        x0, times = signed(chunk), torch.full((len(chunk),), t)
        x_t = schedule.add_noise(x0, torch.randn(x0.shape, generator=generator), times)
        out.append(((belief(x_t, times).cpu() + 1) / 2).clamp(0, 1))
    return torch.cat(out)


def psnr(images: Tensor, truth: Tensor) -> float:
    """Mean over pictures, dB; both in [0, 1]."""
    return float((-10 * (images - truth).square().mean((1, 2, 3)).log10()).mean())


def levels(model: Denoiser, wiener: Denoiser, images: Tensor) -> list[dict[str, float]]:
    """PSNR by noise level of the noisy picture, the filter and the model, under the same noise."""
    schedule, truth = model.schedule, floats(images)

    def noisy(x_t: Tensor, t: Tensor) -> Tensor:
        return x_t / schedule.at(t, x_t)[0]

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        belief: Tensor = model(x_t.to(model.device), t.to(model.device))
        return belief

    rows = []
    for sigma in SIGMAS:
        t = level(schedule, sigma)
        found = {
            name: psnr(views(images, t, schedule, of), truth) for name, of in (("noisy", noisy), ("wiener", wiener), ("model", network))
        }
        rows.append({"sigma": float(schedule.ratio[t]), "t": t, **found})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def sheet(model: Denoiser, wiener: Denoiser, images: Tensor) -> Tensor:
    """A row a noise level: each picture clean, filtered and denoised by the model, (N, 3, S, S) in [0, 1]."""
    out = []
    for sigma in SHEET:
        t = level(model.schedule, sigma)
        parts = [views(images, t, model.schedule, of) for of in (wiener, lambda x, t: model(x.to(model.device), t.to(model.device)))]
        out.append(torch.stack([floats(images), *parts], 1).flatten(0, 1))
    return torch.cat(out)


def judge(given: argparse.Namespace) -> dict[str, Any]:
    from transformers import AutoModelForImageClassification

    model = load(given.model)
    describer = AutoModelForImageClassification.from_pretrained(given.features, dtype=torch.float32).eval()
    train, held = read_split(given.data)
    wiener = WienerDenoiser.fit(train.images, model.schedule)
    facts: dict[str, Any] = {
        "model": Path(given.model).name,
        "weights_hash": model.spec.weights_hash if model.spec else "",
        "images": len(held.images[: given.images]),
        "levels": levels(model, wiener, held.images[: given.images]),
        "ddim_steps": given.steps,
    }
    save_grid(given.out / "levels.png", sheet(model, wiener, held.images[:5]), 15)

    began = time.monotonic()
    made = draw_samples(model, given.samples, given.steps)
    facts.update(samples=given.samples, sampling_seconds=time.monotonic() - began)
    save_grid(given.out / "samples.png", made[:80], 16)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(4))
    rows, others = order[: given.samples], order[given.samples : 2 * given.samples]
    real = describe(describer, train.images[rows])
    facts["fid_like"] = frechet(real, describe(describer, to_bytes(made)))
    facts["fid_like_real"] = frechet(real, describe(describer, train.images[others]))
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--features", required=True, help="transformers folder of a net, for distances: the bundled resnet-64")
    parser.add_argument("--data", type=Path, required=True, help="folder cifar10")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2000, help="held-out pictures for each noise level")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50, help="of DDIM")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    facts = {**judge(given), "judge_seconds": time.monotonic() - began}
    (given.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tell(main)
