"""Small real things that tests of unknown inputs share: a network with a ReLU before its head, and sets of noise."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rediffuse.data.types import Example, ImageSet
from rediffuse.evaluation.judged import Judged

CLASSES = tuple(f"stripes {label}" for label in range(4))


class Rectified(nn.Module):
    """Linear, ReLU (or not), head; counts its calls."""

    def __init__(self, seed: int, relu: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body, self.head = nn.Linear(3 * 8 * 8, 24), nn.Linear(24, len(CLASSES))
        self.relu, self.calls = relu, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        found = self.body(4 * (images.flatten(1) - 0.5))
        return self.head(found.relu() if self.relu else found)


class TwoHeads(nn.Module):
    """Two linear heads on features of their own; its logits are their mean, so that neither makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Rectified(0), Rectified(1)

    def forward(self, images: Tensor) -> Tensor:
        return (self.first(images) + self.second(images)) / 2


def judged(seed: int = 0, name: str = "", relu: bool = True) -> Judged:
    return Judged(Rectified(seed, relu), CLASSES, name=name or f"net {seed}")


def noise(count: int, *, seed: int, low: int = 0, high: int = 256, name: str = "noise", size: int = 8) -> ImageSet:
    """Unlabelled pictures of uniform noise between two grey levels."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(low, high, (count, size, size, 3)).astype(np.uint8)
    examples = [Example(id=f"{name}-{row:03d}", image=Image.fromarray(own), label=None) for row, own in enumerate(pixels)]
    return ImageSet.of(examples, classes=(), name=name)
