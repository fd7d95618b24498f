"""The pixel denoiser `cifar10-32`: an unconditional DDPM of CIFAR-10.

    python -m rediffuse.recipes.bundled.cifar10 --data DATA --out RUNS/cifar10-32 --minutes 9

Shows: how well a UNet of 6.1 M parameters (1.7 GFLOP a call) denoises after a few dozen passes over 45,000 pictures. A killed or
finished piece hands its checkpoint on: the same command again continues. 1,000 linear steps, epsilon, AdamW 8e-4 with cosine, batch
128, EMA, bfloat16 where the hardware computes it. Expected: loss on 5,000 held-out pictures and sample grids as it goes; about 48
samples a second and core with AVX512-BF16, so 12,000 steps take 9 hours of one core; minutes with an accelerator (`--device auto`).
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.base import Denoiser, noise_from_clean
from rediffuse.denoisers.precision import attention_region, resolve_device
from rediffuse.denoisers.unet2d import UNet2DDenoiser
from rediffuse.recipes.bundled.common import (
    Clock,
    cosine_rate,
    load_checkpoint,
    log_line,
    noise_like,
    numbers,
    save_grid,
    signed,
    tell,
)
from rediffuse.recipes.bundled.learner import Learner, options
from rediffuse.recipes.cifar10_split import HELD, read_split

UNET: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (48, 96, 192),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 48,  # channels of a head in this class: 4 heads at 8x8
    "norm_num_groups": 16,
}
SCHEDULER: dict[str, Any] = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
BATCH = 128
TOKENS = 64  # positions that are attended, 8x8
DECAY = 0.9995
GRID = 64


def build_unet() -> Any:
    from diffusers import UNet2DModel

    return UNet2DModel(**UNET)


def build(network: Any = None) -> UNet2DDenoiser:
    """A denoiser of this architecture, its weights free to learn."""
    denoiser = UNet2DDenoiser(network or build_unet(), {**SCHEDULER, "prediction_type": "epsilon"})
    return denoiser.requires_grad_(True).train()


def draw_times(count: int, ratio: Tensor, generator: torch.Generator) -> Tensor:
    """(count,) int64, stratified: every other one uniform over the table, the rest of log-normal noise.

    Under uniform t half of the noise is beyond sigma 3.4, where a view of 32 pixels hardly ever is and little is left to learn; the law of
    Karras et al. (NeurIPS 2022, arXiv 2206.00364, table 1: log sigma ~ N(-1.2, 1.2²)) has its median at .30. ratio: (T,) sigma / alpha.
    """
    uniform = torch.rand(2, (count + 1) // 2, generator=generator)
    strata = (torch.arange(uniform.shape[1]) + uniform) / uniform.shape[1]
    plain = (strata[0] * len(ratio)).long()
    sigma = (1.2 * torch.special.ndtri(strata[1].double()) - 1.2).exp()
    drawn = torch.searchsorted(ratio.double().cpu(), sigma)
    return torch.stack([plain, drawn], 1).flatten()[:count].clamp(max=len(ratio) - 1)


def draw_batch(images: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """These pictures (B, 3, H, W) in [-1, 1], each flipped or not, where the pictures are."""
    flip = (torch.rand(len(rows), generator=generator) < 0.5).to(images.device)
    chosen = signed(images[rows.to(images.device)])
    return torch.where(flip.view(-1, 1, 1, 1), chosen.flip(-1), chosen)


@torch.no_grad()
def held_out_loss(denoiser: Denoiser, images: Tensor, batch: int = 250) -> float:
    """Mean squared error of the noise on these pictures under fixed, evenly spread times and fixed noise."""
    generator, total = torch.Generator().manual_seed(1), 0.0
    order = torch.randperm(len(images), generator=generator)
    times = order * len(denoiser.schedule) // len(images)
    for rows in torch.arange(len(images)).split(batch):
        x0 = signed(images[rows])
        drawn = (x0, times[rows], torch.randn(x0.shape, generator=generator))
        x0, t, noise = (value.to(denoiser.device) for value in drawn)
        with numbers(denoiser.device):
            total += float(denoiser.loss(x0, t, noise).sum())
    return total / len(images)


@torch.no_grad()
def draw_samples(denoiser: Denoiser, count: int, steps: int = 50, seed: int = 0, batch: int = 250) -> Tensor:
    """DDIM from noise with x0_hat clamped, for grids and distances. Returns images (N, 3, S, S) in [0, 1] on the CPU.

    The clamp is what DDPM's sampler does with pictures; a small network needs it, for an error at the first step grows 157 times.
    """
    generator, out, size = torch.Generator().manual_seed(seed), [], denoiser.size or 32
    times = torch.linspace(len(denoiser.schedule) - 1, 0, steps).round().long()
    for rows in torch.arange(count).split(batch):
        x = torch.randn(len(rows), denoiser.channels, size, size, generator=generator).to(denoiser.device)
        for now, after in itertools.pairwise([*times, None]):
            t = now.expand(len(x)).to(x.device)
            alpha, sigma = denoiser.schedule.at(t, x)
            with numbers(denoiser.device):
                x0_hat = denoiser(x, t).clamp(-1, 1)
            if after is None:
                x = x0_hat
                break
            x = denoiser.schedule.add_noise(x0_hat, noise_from_clean(x, x0_hat, alpha, sigma), after.expand(len(x)).to(x.device))
        out.append(denoiser.decode(x).cpu())
    return torch.cat(out)


def hand_on(learner: Learner, judge: UNet2DDenoiser, check: Tensor, out: Path, grid: bool) -> None:
    """Save, log the loss of the averaged network on the held-out pictures, and draw with it."""
    learner.save(out)
    learner.ema.copy_to(judge.network)
    log_line(out / "log.jsonl", step=learner.step, held_out=held_out_loss(judge, check))
    if grid:
        save_grid(out / "samples.png", draw_samples(judge, GRID, steps=25), 16)


def train(
    data: Path,
    out: Path,
    minutes: float | None,
    steps: int,
    batch: int = BATCH,
    rate: float = 8e-4,
    seed: int = 0,
    device: str = "auto",
    held: int = HELD,
    compiled: bool = False,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    clock, where = Clock(minutes), resolve_device(device)
    pictures, check = read_split(data, held=held)
    images = pictures.images.to(where)
    with torch.random.fork_rng(devices=[]):
        judge = build().to(where).eval()  # before the seed: the first import of a library may draw from the global state
        torch.manual_seed(seed)
        denoiser = build().to(where)
    if where.type == "cpu":  # the backward of group norms is slow on channels-last pictures there: 17 % of the step
        denoiser.network.to(memory_format=torch.contiguous_format)
    if compiled:
        denoiser.network.compile()
    optimizer = torch.optim.AdamW(denoiser.network.parameters(), lr=rate, weight_decay=1e-3, betas=(0.9, 0.99))
    learner = Learner(denoiser.network, optimizer, DECAY)
    learner.restore(load_checkpoint(out / "checkpoint.pt"))
    first, began = learner.step, time.monotonic()
    losses: list[Tensor] = []
    for rows in learner.rows(len(pictures), batch, seed, steps, clock):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + learner.step)
        x0 = draw_batch(images, rows, generator)
        t = draw_times(batch, denoiser.schedule.ratio, generator).to(where)
        with numbers(where), attention_region(where, TOKENS):
            loss = denoiser.loss(x0, t, noise_like(x0, generator)).mean()
        learner.learn(loss, rate * cosine_rate(learner.step, steps, 400, floor=0.02), clip=1.0)
        losses.append(loss.detach())
        if learner.step % 100 == 0:
            speed = (learner.step - first) * batch / (time.monotonic() - began)
            log_line(out / "log.jsonl", step=learner.step, loss=float(torch.stack(losses).mean()), samples_per_second=speed)
            losses.clear()
        if learner.step % 500 == 0 and learner.step < steps:
            hand_on(learner, judge, check.images, out, grid=learner.step % 2000 == 0)
    if learner.step > first:
        hand_on(learner, judge, check.images, out, grid=learner.step == steps)


def main() -> None:
    given = options(__doc__, steps=12_000, batch=BATCH, rate=8e-4, data="folder cifar10").parse_args()
    train(
        given.data, given.out, given.minutes, given.steps, given.batch, given.rate, given.seed, given.device, compiled=given.compile
    )  # fmt: skip


if __name__ == "__main__":
    tell(main)
