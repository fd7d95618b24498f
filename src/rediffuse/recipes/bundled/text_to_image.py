"""The denoiser and the text encoder of `tiny-imagenet-64`, trained together on latents.

    python -m rediffuse.recipes.bundled.text_to_image --data DATA --digits MNIST --autoencoder RUNS/autoencoder --out RUNS/unet --minutes 9

Shows: how far a UNet of 6.5 M parameters comes with 51,000 pictures and 5,000 digits. A killed or finished piece hands its checkpoint on:
the same command again continues. v-prediction with a loss on 8x8 averages beside the fine one, half of the times among the noisiest 300,
AdamW 3.5e-4 with cosine (at 6e-4 words were hardly learned), batch 64, EMA. Expected: loss on held-out latents under the right name and
under a wrong one, and sample grids, as it goes; 34 to 40 samples/s and core with AVX512-BF16.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.concepts.prompts import TEMPLATES
from rediffuse.denoisers.precision import attention_region, resolve_device
from rediffuse.recipes.bundled.captions import Captions
from rediffuse.recipes.bundled.common import (
    Clock,
    Ema,
    cosine_rate,
    load_checkpoint,
    log_line,
    noise_like,
    numbers,
    read_pictures,
    save_grid,
    tell,
)
from rediffuse.recipes.bundled.latents import Basis, Latents, basis_of, cache_latents, decode, trained_autoencoder
from rediffuse.recipes.bundled.learner import Learner, options
from rediffuse.recipes.bundled.networks import Pair, betas, started
from rediffuse.recipes.bundled.text_start import tell_classes_apart
from rediffuse.recipes.bundled.vocabulary import DIGIT, tokenizer_of_run

COARSE = 0.5
"""Weight of the coarse loss beside the fine one."""


def objective(pair: Pair, x0: Tensor, ids: Tensor, t: Tensor, noise: Tensor, kept: Tensor, rough: float = COARSE) -> Tensor:
    """Fine and coarse mean squared error of v, one value a sample. rough: weight of the coarse one."""
    error = residual(pair, x0, ids, t, noise, kept)
    return error.square().mean((1, 2, 3)) + rough * coarse(error)


def noise_times(count: int, generator: torch.Generator) -> Tensor:
    """Half of them uniform, half among the noisiest 300 of 1,000, where a word still tells something that the picture does not."""
    spread, late = torch.randint(0, 1000, (count,), generator=generator), torch.randint(700, 1000, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.5, spread, late)


def coarse(error: Tensor, side: int = 4) -> Tensor:
    """The same mean square of averages over side x side positions, times side² so that white noise keeps its size.

    A word tells layout and colour; at full resolution they are lost among details (Hoogeboom et al., ICML 2023, arXiv 2301.11093,
    section 3.4). The best answer to either loss is the same, so their sum has it too.
    """
    return F.avg_pool2d(error, side).square().mean((1, 2, 3)) * side**2


def residual(pair: Pair, x0: Tensor, ids: Tensor, t: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """What is predicted less v = alpha * noise - sigma * x0, (B, 6, 32, 32) float32.

    Reference: Salimans & Ho, ICLR 2022, arXiv 2202.00512, appendix D.
    """
    alpha, sigma = kept[t].sqrt().view(-1, 1, 1, 1), (1 - kept[t]).sqrt().view(-1, 1, 1, 1)
    x_t = (alpha * x0 + sigma * noise).to(memory_format=torch.channels_last)
    with numbers(x0.device), attention_region(x0.device, TOKENS):
        v: Tensor = pair(x_t, t, ids)
    return v - (alpha * noise - sigma * x0)


@torch.no_grad()
def held_out_loss(
    pair: Pair, latents: Latents, captions: Captions, labels: Tensor, kept: Tensor, shift: int = 0, count: int = 512
) -> tuple[float, float]:
    """Loss, fine and coarse, on validation latents under their own class name (a shift: another's), with fixed times and noise."""
    generator, where = torch.Generator().manual_seed(1), kept.device
    fine, rough, names = 0.0, 0.0, captions.words[:-1]
    for rows in torch.arange(count).split(64):
        ids = torch.stack([captions.ids(TEMPLATES[0].format(captions.words[(int(labels[row]) + shift) % len(names)][0])) for row in rows])
        t = ((rows * 1000) // count).long()
        noise = torch.randn(len(rows), 6, 32, 32, generator=generator)
        x0 = latents.plain[rows].float().to(where)
        error = residual(pair, x0, ids.to(where), t.to(where), noise.to(where), kept)
        fine, rough = fine + float(error.square().mean((1, 2, 3)).sum()), rough + float(coarse(error).sum())
    return fine / count, rough / count


@torch.no_grad()
def sample(pair: Pair, captions: Captions, prompts: list[str], kept: Tensor, guidance: float, steps: int = 25, seed: int = 0) -> Tensor:
    """Plain DDIM from noise with classifier-free guidance, for the grids. Returns latents (N, 6, 32, 32)."""
    where = kept.device
    ids = torch.stack([captions.ids(prompt) for prompt in prompts] + [captions.ids("")] * len(prompts)).to(where)
    x = torch.randn(len(prompts), 6, 32, 32, generator=torch.Generator().manual_seed(seed)).to(where)
    times = torch.linspace(999, 0, steps + 1).long().to(where)
    for now, after in itertools.pairwise(times):
        with numbers(where):
            v = pair(x.repeat(2, 1, 1, 1), now.expand(len(ids)), ids)
        named, empty = v.chunk(2)
        v = empty + guidance * (named - empty)
        alpha, sigma = kept[now].sqrt(), (1 - kept[now]).sqrt()
        x0, noise = alpha * x - sigma * v, sigma * x + alpha * v
        x = kept[after].sqrt() * x0 + (1 - kept[after]).sqrt() * noise if after > 0 else x0
    return x


TOKENS = 64  # positions that are attended, 8x8
DECAY = 0.9995  # of the averaged weights
GRID = (
    "goldfish",
    "monarch",
    "tractor",
    "pizza",
    "school bus",
    "golden retriever",
    "lakeside",
    "orange",
    "king penguin",
    "barn",
    "teapot",
    DIGIT,
)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is learned from, and what judges it.

    latents: of the training pictures and the digits behind them; check, labels: of the validation pictures; captions: for `latents`;
    vae, basis: for the way back; kept: (1000,) the schedule's alpha².
    """

    latents: Latents
    check: Latents
    labels: Tensor
    captions: Captions
    vae: Any
    basis: Basis
    kept: Tensor

    def draw(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, captions, times and noise of a batch, where the latents are."""
        x0, ids = self.latents.batch(rows, generator), self.captions.batch(rows, generator)
        t = noise_times(len(rows), generator)
        return x0, ids.to(x0.device), t.to(x0.device), noise_like(x0, generator)


def gather(
    data: Path, digits: Path, coder: Path, out: Path, start: Path | None, state: dict[str, Any] | None, where: torch.device
) -> Material:
    """Read the pictures and encode them, or read their latents from an earlier piece. state: of the checkpoint, if there is one."""
    pictures, held, scans = read_pictures(data, "train"), read_pictures(data, "validation"), read_pictures(digits, "train")
    vae = trained_autoencoder(coder, where)
    # What was begun in a basis goes on in it: another machine may turn its directions.
    basis = Basis(shift=state["shift"], matrix=state["matrix"]) if state else basis_of(coder, vae, pictures.images[:2000])
    base, check, ink = cache_latents(vae, [pictures, held, scans], basis, out / "latents.safetensors")
    return Material(
        latents=Latents(plain=torch.cat([base.plain, ink.plain]), mirrored=torch.cat([base.mirrored, ink.mirrored])).to(where),
        check=check,
        labels=held.labels,
        captions=Captions(tokenizer_of_run(out, pictures.terms, start), pictures.terms, pictures.names, pictures.labels, len(scans)),
        vae=vae,
        basis=basis,
        kept=(1 - betas()).cumprod(0).float().to(where),
    )


def hand_on(learner: Learner, material: Material, judge: Pair, out: Path) -> None:
    """Save, and log the loss of the averaged networks under right and wrong names."""
    learner.save(out, shift=material.basis.shift, matrix=material.basis.matrix)
    learner.ema.copy_to(judge)
    told = (material.check, material.captions, material.labels, material.kept)
    right, wrong = (held_out_loss(judge.eval(), *told, shift) for shift in (0, 37))
    named = {"held_out": right[0], "under_a_wrong_name": wrong[0], "coarse": right[1], "coarse_under_a_wrong_name": wrong[1]}
    log_line(out / "log.jsonl", step=learner.step, **named)


def draw_grid(judge: Pair, material: Material, path: Path) -> None:
    prompts = [TEMPLATES[0].format(word) for word in GRID for _ in range(6)]
    drawn = sample(judge, material.captions, prompts, material.kept, guidance=4.0)
    save_grid(path, decode(material.vae, drawn, material.basis), 12)


def train(
    data: Path,
    digits: Path,
    coder: Path,
    out: Path,
    minutes: float | None,
    steps: int,
    batch: int = 64,
    rate: float = 3.5e-4,
    seed: int = 0,
    start: Path | None = None,
    device: str = "auto",
    compiled: bool = False,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    clock, state, where = Clock(minutes), load_checkpoint(out / "checkpoint.pt"), resolve_device(device)
    material = gather(data, digits, coder, out, start, state, where)
    with torch.random.fork_rng(devices=[]):
        judge = Pair(material.captions.tokenizer).to(where)  # before the seed: the first import of a library may draw from the global state
        torch.manual_seed(seed)
        pair = started(material.captions.tokenizer, start).to(where)
    network: Any = pair.unet
    network.to(memory_format=torch.channels_last)
    if compiled:
        network.compile()
    learner = Learner(pair, torch.optim.AdamW(pair.parameters(), lr=rate, weight_decay=1e-3, betas=(0.9, 0.99)), DECAY)
    if not learner.restore(state):
        told = tell_classes_apart(pair.text, material.captions, seed=seed)
        learner.ema = Ema(pair, DECAY)
        log_line(out / "log.jsonl", step=0, captions_told_apart=told)
    first, began = learner.step, time.monotonic()
    losses: list[Tensor] = []
    for rows in learner.rows(len(material.latents.plain), batch, seed, steps, clock):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + learner.step)
        loss = objective(pair, *material.draw(rows, generator), material.kept).mean()
        learner.learn(loss, rate * cosine_rate(learner.step, steps, 400, floor=0.02), clip=1.0)
        losses.append(loss.detach())
        if learner.step % 100 == 0:
            speed = (learner.step - first) * batch / (time.monotonic() - began)
            log_line(out / "log.jsonl", step=learner.step, loss=float(torch.stack(losses).mean()), samples_per_second=speed)
            losses.clear()
        if learner.step % 250 == 0:
            hand_on(learner, material, judge, out)
        if learner.step % 1000 == 0:
            draw_grid(judge, material, out / "samples.png")
    hand_on(learner, material, judge, out)


def main() -> None:
    parser = options(__doc__, steps=8000, batch=64, rate=3.5e-4)
    parser.add_argument("--digits", type=Path, required=True, help="folder mnist-5k")
    parser.add_argument("--autoencoder", type=Path, required=True, help="out folder of the autoencoder's trainer, or an exported pipeline")
    parser.add_argument("--start", type=Path, help="exported pipeline whose weights to begin with, in place of random ones")
    given = parser.parse_args()
    folders = (given.data, given.digits, given.autoencoder, given.out)
    train(
        *folders, given.minutes, given.steps, given.batch, given.rate, given.seed, given.start, given.device, given.compile
    )  # fmt: skip


if __name__ == "__main__":
    tell(main)
