"""What half precision in the trunk costs x0_hat, beside what a half precision head would cost alone.

    python -m benchmarks.precision --model cifar10-32 --out results
    python -m benchmarks.precision --model random --out results

x0_hat = (x_t - sigma epsilon) / alpha enlarges an error of epsilon by sigma / alpha, so every number here is one error of epsilon times
that factor. Root mean squares over pictures cut from scikit-learn's two sample photos; the noise is the same in all numbers. Columns:
    epsilon        of the network's output, trunk in half precision and head in float32, against all float32
    x0_hat         the same before the clamp: what is to be looked at
    clamped        the same after the clamp to [-1, 1]
    half_head      x0_hat if the head, too, put out half precision
    rounding       x0_hat if epsilon were rounded and nothing else: the floor of any half precision head
`random` is the architecture of cifar10-32 with random weights, its head scaled so that epsilon has unit variance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import Measured, options, run
from benchmarks.machine import describe
from torch import Tensor

from rediffuse.denoisers.base import Denoiser, clean_from_output
from rediffuse.denoisers.load import load
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.precision import resolve_device, resolve_dtype
from rediffuse.denoisers.unet2d import UNet2DDenoiser
from rediffuse.errors import ConfigError
from rediffuse.evaluation.results import render_table
from rediffuse.recipes.bundled.cifar10 import SCHEDULER, build_unet

TIMES = (0, 450, 700, 900, 999)
NUMBERS = ("float16", "bfloat16")


def pictures(side: int, count: int) -> Tensor:
    """Squares cut from two photos at a quarter of their size, (N, 3, side, side) in [-1, 1]."""
    from sklearn.datasets import load_sample_images

    squares = []
    for photo in load_sample_images().images:
        small = torch.nn.functional.avg_pool2d(torch.tensor(photo).permute(2, 0, 1).float()[None], 4)[0] / 127.5 - 1  # (3, 106, 160)
        if min(small.shape[1:]) < side:
            raise ConfigError(f"the sample photos hold no squares of {side} pixels at a quarter of their size; take a smaller model")
        rows = small.unfold(1, side, side // 2).unfold(2, side, side // 2)  # (3, m, n, side, side)
        squares.append(rows.permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(squares)[:count].contiguous()


def rms(value: Tensor) -> float:
    return float(value.double().square().mean().sqrt())


def random_network(device: torch.device) -> UNet2DDenoiser:
    """Random weights whose output has unit variance, as noise has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = UNet2DDenoiser(build_unet(), SCHEDULER).to(device)
    noise = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        size = rms(denoiser.output(noise, torch.full((8,), 999, device=device)))
        for value in denoiser.network.conv_out.parameters():
            value /= size
    return denoiser


def opened(name: str, numbers: str, device: torch.device) -> PixelDenoiser:
    if name == "random":
        exact = random_network(device)
        if resolve_dtype(numbers, device) is torch.float32:
            return exact
        return UNet2DDenoiser(deepcopy(exact.network), SCHEDULER, dtype=resolve_dtype(numbers, device)).to(device)
    denoiser: Denoiser = load(name, device=device, dtype=numbers)
    if not isinstance(denoiser, PixelDenoiser) or denoiser.conditional:
        raise ConfigError(f"{name} is a {type(denoiser).__name__}; give an unconditional pixel model such as cifar10-32")
    return denoiser


@torch.no_grad()
def measure(exact: PixelDenoiser, half: PixelDenoiser, x0: Tensor, times: Sequence[int] = TIMES) -> list[dict[str, Any]]:
    """A row a time. x0: (N, 3, S, S) in [-1, 1]."""
    rows, noise = [], torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0.device)
    for time_index in times:
        t = torch.full((len(x0),), time_index, device=x0.device)
        alpha, sigma = exact.schedule.at(t, x0)
        x_t = exact.schedule.add_noise(x0, noise, t)
        true, rough = exact.output(x_t, t), half.output(x_t, t)

        def belief(output: Tensor, x_t: Tensor = x_t, alpha: Tensor = alpha, sigma: Tensor = sigma) -> Tensor:
            return clean_from_output(output, x_t, alpha, sigma, exact.prediction)

        wanted = belief(true)
        rows.append(
            {
                "numbers": str(half.dtype).removeprefix("torch."),
                "t": time_index,
                "ratio": float(exact.schedule.ratio[time_index]),
                "epsilon": rms(rough - true),
                "x0_hat": rms(belief(rough) - wanted),
                "clamped": rms(belief(rough).clamp(-1, 1) - wanted.clamp(-1, 1)),
                "half_head": rms(belief(rough.to(half.dtype)) - wanted),
                "rounding": rms(belief(true.to(half.dtype)) - wanted),
            }
        )
    return rows


def benchmark(given: argparse.Namespace) -> Measured:
    device = resolve_device(given.device)
    print(describe(device))
    exact = opened(given.model, "float32", device)
    x0 = pictures(exact.size or 32, given.images).to(device)
    rows = [row for numbers in NUMBERS for row in measure(exact, opened(given.model, numbers, device), x0)]
    print(render_table(rows))
    headline = {f"{row['numbers']}_at_{row['t']}": row["x0_hat"] for row in rows}
    model = Path(given.model).name
    name = "bench_precision" if model == "cifar10-32" else f"bench_precision_{model}"
    weights = "random weights" if exact.spec is None else f"weights {exact.spec.weights_hash[:12]} of {model}"
    return Measured(name=name, headline=headline, rows=rows, device=str(device), notes=[f"{len(x0)} pictures", weights])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--model", default="cifar10-32", help="bundled name, file or folder of a pixel model, or `random`")
    parser.add_argument("--images", type=int, default=32)
    return run("precision", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
