"""Photos that are small, and a model that is exactly right for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rediffuse.concepts.prompts import as_words
from rediffuse.data import Example, ImageSet
from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import scaled_linear_betas
from rediffuse.generation.run import generate
from rediffuse.generation.store import Run
from rediffuse.methods.real_guidance import RealGuidance

CLASSES = ("cat", "dog")
SIDE = 8
RESULT = {"README.md", "images", "manifest", "plan.parquet", "rejected.jsonl", "run.json"}
"""What a finished run's folder holds."""

Photos = Callable[..., ImageSet]
Make = Callable[..., Run]


def picture(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def take_photos(classes: Sequence[str] = CLASSES, each: int = 3, size: tuple[int, int] = (SIDE, SIDE), first: int = 0) -> ImageSet:
    """`each` photos of noise for every class; ids are CLASS/NUMBER.png."""
    examples = [
        Example(id=f"{name}/{first + row}.png", image=picture(1000 * label + first + row, size), label=label)
        for label, name in enumerate(classes)
        for row in range(each)
    ]
    return ImageSet.of(examples, classes=classes)


def mixture(classes: Sequence[str] = CLASSES) -> GaussianMixtureDenoiser:
    means = torch.rand((len(classes), 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)) * 2 - 1
    prompts = {f"a photo of a {as_words(name)}": place for place, name in enumerate(classes)}
    schedule = NoiseSchedule.from_betas(scaled_linear_betas())
    return GaussianMixtureDenoiser(means, torch.full((len(classes),), 0.05), torch.ones(len(classes)), schedule, prompts)


class Varied(RealGuidance):
    """Real Guidance at varied strengths, so that trajectories of unequal length share batches."""

    def __init__(self, model: Any, classes: Sequence[str], **options: Any) -> None:
        super().__init__(model, classes, steps=8, **options)
        self.strengths, self.law = (0.25, 0.5, 0.75, 1.0), "stratified"


@pytest.fixture
def photos() -> Photos:
    return take_photos


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(photos, name="out", method=..., **options): a run of the mixture, quiet and with a given rate."""

    def made(images: ImageSet | None = None, name: str = "out", method: Any = None, **options: Any) -> Any:
        images = take_photos() if images is None else images
        method = Varied(mixture(images.classes), images.classes) if method is None else method
        return generate(
            images, method, tmp_path / name, **({"side": SIDE, "copies": 4, "batch": 2, "rate": 1e4, "progress": False} | options)
        )

    return made


def pixels(run: ImageSet) -> dict[str, bytes]:
    """The pixels of every image by its name."""
    return {example.id: example.image.tobytes() for example in run}


def far(one: ImageSet, two: ImageSet) -> float:
    """The largest distance of two sets' pixels, in [0, 1]."""
    images = {example.id: np.asarray(example.image, dtype=float) for example in two}
    return max(float(np.abs(np.asarray(example.image) - images[example.id]).max()) for example in one) / 255
