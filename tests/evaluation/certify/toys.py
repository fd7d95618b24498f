"""Classifiers whose smoothed selves have closed forms."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rediffuse.data.types import Example, ImageSet
from rediffuse.evaluation.judged import Judged

CLASSES = ("above", "below")


class HalfSpace(nn.Module):
    """Which side of a plane: under Gaussian noise the answer stays, and the distance to the plane is the certified radius."""

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__()
        normal = torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed))
        self.normal = nn.Parameter(normal / normal.norm(), requires_grad=False)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return torch.stack([self.distance(images), -self.distance(images)], 1)

    def distance(self, images: Tensor) -> Tensor:
        """Signed, (B,)."""
        return ((images - 0.5) * self.normal).sum((1, 2, 3))


def half_space(size: int, seed: int = 0, name: str = "plane") -> Judged:
    return Judged(HalfSpace(size, seed), CLASSES, name=name)


def noise_pictures(count: int, size: int, seed: int = 0) -> ImageSet:
    """Random pixels; labels by the plane of the same size and seed 0, so that it is always right."""
    generator, plane = np.random.default_rng(seed), HalfSpace(size)
    examples = []
    for number in range(count):
        pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
        image = torch.from_numpy(pixels).permute(2, 0, 1).float()[None] / 255
        label = int(plane.distance(image) < 0)
        examples.append(Example(id=f"{number:05d}", image=Image.fromarray(pixels), label=label))
    return ImageSet.of(examples, classes=CLASSES, name="noise")
