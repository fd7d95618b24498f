"""The autoencoder of `tiny-imagenet-64`: AutoencoderKL of factor 2 with 6 latent channels.

    python -m rediffuse.recipes.bundled.autoencoder --data DATA --out RUNS/autoencoder --minutes 12

Shows: what a small picture keeps on the way to latents and back. Expected: validation PSNR 34.5 dB after 4,000 steps of 24 crops
of 32x32 (18 minutes of one core). Every fourth step sees whole pictures. The latent is sampled in training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.denoisers.precision import resolve_device
from rediffuse.recipes.bundled.common import (
    Clock,
    Pictures,
    cosine_rate,
    load_checkpoint,
    log_line,
    numbers,
    read_pictures,
    save_grid,
    signed,
    tell,
)
from rediffuse.recipes.bundled.learner import Learner, options

CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "latent_channels": 6,
    "norm_num_groups": 16,
    "sample_size": 64,
    "mid_block_add_attention": False,
}


def build() -> nn.Module:
    from diffusers import AutoencoderKL

    model: nn.Module = AutoencoderKL(**CONFIG)
    return model


def crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """One random crop and flip an image. (B, 3, H, W) uint8 -> (B, 3, size, size) uint8."""
    room = images.shape[-1] - size
    tops, lefts = torch.randint(0, room + 1, (2, len(images)), generator=generator).tolist()
    flips = torch.rand(len(images), generator=generator) < 0.5
    cut = torch.stack([image[:, top : top + size, left : left + size] for image, top, left in zip(images, tops, lefts, strict=True)])
    return torch.where(flips.view(-1, 1, 1, 1).to(cut.device), cut.flip(-1), cut)


def objective(model: Any, x: Tensor, generator: torch.Generator, kl_weight: float = 1e-5) -> Tensor:
    """L1 + 0.5 MSE a number of the picture, plus the weighted KL to a unit Gaussian a number of the latent."""
    with numbers(x.device):
        posterior = model.encode(x).latent_dist
        back = model.decode(posterior.sample(generator=generator)).sample.float()
    kl: Tensor = posterior.kl().mean() / posterior.mean[0].numel()
    return F.l1_loss(back, x) + 0.5 * F.mse_loss(back, x) + kl_weight * kl


@torch.no_grad()
def psnr(model: Any, pictures: Pictures, count: int = 500) -> tuple[float, Tensor]:
    """Mean PSNR in dB over pictures in [0, 1], and the round trips themselves."""
    out, where = [], next(model.parameters()).device
    for chunk in pictures.images[:count].split(50):
        x = signed(chunk).to(where)
        out.append(((model.decode(model.encode(x).latent_dist.mean).sample + 1) / 2).clamp(0, 1).cpu())
    back = torch.cat(out)
    error = (back - pictures.images[:count].float() / 255).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean()), back


def train(
    data: Path,
    out: Path,
    minutes: float | None,
    steps: int,
    batch: int = 24,
    rate: float = 2e-3,
    seed: int = 0,
    device: str = "auto",
    compiled: bool = False,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    where = resolve_device(device)
    pictures, held = read_pictures(data, "train"), read_pictures(data, "validation")
    own = pictures.images.to(where)
    with torch.random.fork_rng(devices=[]):
        judge: Any = build().to(where)  # before the seed: the first import of a library may draw from the global state
        torch.manual_seed(seed)
        model: Any = build()
    model = model.to(where, memory_format=torch.channels_last)
    if compiled:
        model.encoder.compile()
        model.decoder.compile()
    learner, clock = Learner(model, torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4), 0.998), Clock(minutes)
    learner.restore(load_checkpoint(out / "checkpoint.pt"))
    for rows in learner.rows(len(pictures), batch, seed, steps, clock):
        whole = learner.step % 4 == 0
        generator = torch.Generator().manual_seed(seed * 1_000_003 + learner.step)
        images = crops(own[(rows[: batch // 4] if whole else rows).to(where)], 64 if whole else 32, generator)
        loss = objective(model, signed(images).to(memory_format=torch.channels_last), generator)
        learner.learn(loss, rate * cosine_rate(learner.step, steps, 100), clip=1.0)
        if learner.step % 100 == 0:
            log_line(out / "log.jsonl", step=learner.step, loss=float(loss))
        if learner.step % 500 == 0 or learner.step == steps:
            learner.save(out)
            learner.ema.copy_to(judge)
            value, back = psnr(judge.eval(), held, 200)
            log_line(out / "log.jsonl", step=learner.step, psnr=value)
            save_grid(out / "round_trips.png", torch.cat([held.images[:16].float() / 255, back[:16]]), 16)
    learner.save(out)


def main() -> None:
    given = options(__doc__, steps=6000, batch=24, rate=2e-3).parse_args()
    train(given.data, given.out, given.minutes, given.steps, given.batch, given.rate, given.seed, given.device, given.compile)


if __name__ == "__main__":
    tell(main)
