"""A small robust training that uses everything at once; as a program it is what gets killed, or runs on several processes.

python robust_run.py CHECKPOINT OUT [--kill-at STEP] [--steady] [--again]
"""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import replace
from pathlib import Path

import torch
from tests.training import toys

from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.bank import Bank
from rediffuse.methods.diffaug import DiffAug
from rediffuse.training.augment import CropViews, StandardViews
from rediffuse.training.backbones import open_backbone
from rediffuse.training.classifier import Classifier
from rediffuse.training.loop import fit_network
from rediffuse.training.objectives import Extra, Objective
from rediffuse.training.pool import PixelBank, pool_of
from rediffuse.training.preprocessing import Preprocessing
from rediffuse.training.procedure import Procedure
from rediffuse.training.settings import TrainSettings

STEPS = 10
CLASSES = ("stripes 0", "stripes 1", "stripes 2", "stripes 3")
PROCEDURE = Procedure(optimizer="sgd", schedule="step", order="epochs", ema=0.9, clip=1.0)


def settings(steps: int = STEPS) -> TrainSettings:
    return TrainSettings(steps=steps, batch=8, learning_rate=0.02, weight_decay=5e-4)


def diffaug() -> DiffAug:
    """One step of noise and back by the exact denoiser of two Gaussians."""
    from rediffuse.denoisers.base import NoiseSchedule

    means = torch.stack([torch.full((3, 16, 16), value) for value in (-0.3, 0.3)])
    denoiser = GaussianMixtureDenoiser(means, torch.tensor([0.2, 0.2]), torch.ones(2), NoiseSchedule.from_betas(linear_betas()))
    denoiser.size = 16
    return DiffAug(denoiser)


def steady_net() -> Classifier:
    """A network without BatchNorm and dropout: what it computes of a picture does not depend on the rest of the batch."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8, num_labels=4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ViTForImageClassification(config)
    return Classifier(model, Preprocessing(height=16, width=16), CLASSES)


def train(checkpoint: Path | None, steady: bool = False, kill_at: int | None = None) -> Classifier:
    """Steady: nothing that depends on how a batch is parted. Otherwise all at once, a bank that remembers among it."""

    def perhaps_die(done: int, _: int) -> None:
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    pool = pool_of(toys.striped(6), None, PixelBank(16))
    if steady:
        return fit_network(
            steady_net(),
            pool,
            settings=settings(4),
            views=StandardViews(rotation=0),
            objective=Objective(extras=(Extra(),)),
            procedure=replace(PROCEDURE, clip=0.0),
            seed=2,
        )
    bank = Bank(diffaug(), rate=0.25, capacity=24, warmup=12)
    objective = Objective(extras=(Extra(method=bank), Extra(method=diffaug(), share=0.5)), augmix=AugMix())
    net = open_backbone("scratch", CLASSES, seed=1, size=16)
    net.model.unused = torch.nn.Parameter(torch.zeros(1))  # such as the mask token of a DINOv2
    return fit_network(
        net,
        pool,
        settings=settings(),
        views=CropViews(),
        objective=objective,
        procedure=PROCEDURE,
        seed=2,
        checkpoint=checkpoint,
        checkpoint_every=3,
        progress=perhaps_die,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--steady", action="store_true")
    parser.add_argument("--again", action="store_true", help="and once more from the start, unbroken: OUT-again")
    told = parser.parse_args()
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    torch.save(train(told.checkpoint, told.steady, told.kill_at).state_dict(), told.out.with_name(f"{told.out.name}-{rank}"))
    if told.again:
        torch.save(train(None).state_dict(), told.out.with_name(f"{told.out.name}-again-{rank}"))


if __name__ == "__main__":
    main()
