"""Image features: the bundled `resnet-64`, the `forty` features of the comparison, and the recogniser that judges pictures.

    python -m rediffuse.recipes.bundled.features --data DATA --known KNOWN --which resnet-64 --out RUNS/resnet-64 --minutes 10

Shows: what a small transformers ResNet learns from tiny-imagenet-base in minutes. `resnet-64` learns the 150 classes that are not
known-20; `forty` 40 of those; `recogniser` all 170 (never shipped). Expected: .41 top-1 of `resnet-64` on the validation pictures of its
own classes after 3,500 steps, 31 minutes of one core (results/bundled_resnet_64.json).
"""

from __future__ import annotations

from dataclasses import replace
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
    signed,
    tell,
)
from rediffuse.recipes.bundled.learner import Learner, options

INPUT_SIZE = 96  # the stem divides by 4: a 64-pixel picture is enlarged first, as its image processor does
WIDTHS = {"resnet-64": (48, 96, 192, 384), "forty": (32, 64, 128, 256), "recogniser": (48, 96, 192, 384)}


def build(which: str, names: tuple[str, ...]) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=WIDTHS[which][0],
        hidden_sizes=list(WIDTHS[which]),
        depths=[2, 2, 2, 1],
        layer_type="basic",
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    model: nn.Module = ResNetForImageClassification(config)
    return model


def class_names(pictures: Pictures, which: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that each network may see; `forty` is a seeded choice among the 150."""
    if which == "recogniser":
        return pictures.names
    unseen = tuple(name for name in pictures.names if name not in known)
    if which == "resnet-64":
        return unseen
    order = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(40))[:40]
    return tuple(unseen[index] for index in sorted(order.tolist()))


def restrict(pictures: Pictures, names: tuple[str, ...]) -> Pictures:
    """The rows of these classes, labelled by their place in `names`."""
    place = torch.tensor([names.index(name) if name in names else -1 for name in pictures.names])
    keep = place[pictures.labels] >= 0
    terms = tuple(term for term, kept in zip(pictures.terms, keep.tolist(), strict=True) if kept)
    return replace(pictures, images=pictures.images[keep], labels=place[pictures.labels[keep]], terms=terms, names=names)


def view(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random resized crop (scale .35 to 1) and flip an image, on floats, straight to the input size. (B, 3, 64, 64) uint8 -> float."""
    count = len(images)
    scale = (0.35 + 0.65 * torch.rand(count, generator=generator)).sqrt()
    stretch = (torch.rand(count, generator=generator) - 0.5).mul(0.5).exp()
    wide, high = (scale * stretch).clamp(max=1), (scale / stretch).clamp(max=1)
    shift_x, shift_y = (torch.rand(2, count, generator=generator) * 2 - 1) * torch.stack([1 - wide, 1 - high])
    mirror = (torch.rand(count, generator=generator) < 0.5).float() * -2 + 1
    zero = torch.zeros(count)
    theta = torch.stack([torch.stack([wide * mirror, zero, shift_x], 1), torch.stack([zero, high, shift_y], 1)], 1)
    grid = F.affine_grid(theta, [count, 3, INPUT_SIZE, INPUT_SIZE], align_corners=False).to(images.device)
    return F.grid_sample(signed(images), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def enlarge(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, 96, 96) float in [-1, 1]."""
    return F.interpolate(signed(images), size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)


@torch.no_grad()
def accuracy(model: Any, images: Tensor, labels: Tensor) -> float:
    model.eval()
    right = 0
    for chunk, truth in zip(images.split(200), labels.split(200), strict=True):
        right += int((model(enlarge(chunk.to(model.device))).logits.argmax(-1).cpu() == truth).sum())
    return right / len(labels)


def train(
    data: Path, known: Path, which: str, out: Path, minutes: float | None, steps: int, batch: int = 128, rate: float = 0.4, seed: int = 0,
    device: str = "auto", compiled: bool = False,
) -> None:  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    pictures, held = read_pictures(data, "train"), read_pictures(data, "validation")
    names = class_names(pictures, which, read_pictures(known, "test").names)
    pictures, held = restrict(pictures, names), restrict(held, names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(which, names).to(resolve_device(device))
    if compiled:
        model.compile()
    fit(model, pictures, held, which, out, minutes, steps, batch, rate, seed)


def fit(
    model: Any,
    pictures: Pictures,
    held: Pictures,
    which: str,
    out: Path,
    minutes: float | None,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> float:
    """SGD with Nesterov momentum, cosine, label smoothing .1, where the model is; returns the validation accuracy of the EMA weights."""
    model = model.to(memory_format=torch.channels_last)
    images, labels = pictures.images.to(model.device), pictures.labels.to(model.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    learner, value = Learner(model, optimizer, 0.998), 0.0
    learner.restore(load_checkpoint(out / "checkpoint.pt"))
    judge: Any = build(which, pictures.names).to(model.device)
    for rows in learner.rows(len(pictures), batch, seed, steps, Clock(minutes)):
        model.train()
        generator = torch.Generator().manual_seed(seed * 1_000_003 + learner.step)
        rows = rows.to(model.device)
        x = view(images[rows], generator).to(memory_format=torch.channels_last)
        with numbers(model.device):
            logits = model(x).logits
        loss = F.cross_entropy(logits.float(), labels[rows], label_smoothing=0.1)
        learner.learn(loss, rate * cosine_rate(learner.step, steps, 200))
        if learner.step % 50 == 0:
            log_line(out / "log.jsonl", step=learner.step, loss=float(loss.detach()))
        if learner.step % 500 == 0 or learner.step == steps:
            learner.save(out)
            learner.ema.copy_to(judge)
            value = accuracy(judge, held.images, held.labels)
            log_line(out / "log.jsonl", step=learner.step, top1=value)
    learner.save(out)
    return value


def main() -> None:
    parser = options(__doc__, steps=4000, batch=128, rate=0.4)
    parser.add_argument(
        "--known", type=Path, required=True, help="folder tiny-imagenet-known: its classes are left out of resnet-64 and forty"
    )
    parser.add_argument("--which", choices=sorted(WIDTHS), required=True)
    given = parser.parse_args()
    train(
        given.data, given.known, given.which, given.out, given.minutes, given.steps, given.batch, given.rate, given.seed, given.device,
        given.compile,
    )  # fmt: skip


if __name__ == "__main__":
    tell(main)
