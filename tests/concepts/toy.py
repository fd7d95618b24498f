"""A text-to-image denoiser whose best word is known in closed form, and sets of small pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rediffuse.concepts.concepts import Concepts
from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.data.types import Example, ImageSet
from rediffuse.denoisers.base import Condition, Denoiser, NoiseSchedule
from rediffuse.denoisers.schedules import linear_betas

SIDE = 8
WIDTH = 24
COUNTS = {"cat": 2, "dog": 1, "red bird": 3}
TOY = InversionRecipe(steps=300, batch_per_class=6, learning_rate=0.3, start="the", decay="cosine", weight_decay=0.0)


class LinearDenoiser(Denoiser):
    """x0_hat = basis @ (mean of the word's vectors), whatever x_t is. The loss is quadratic in the word.

    So the word that fits a class best has the mean basis^T (mean of its pictures in [-1, 1]). A prompt says nothing but its placeholder.
    `calls` counts samples.
    """

    conditional = True
    channels, size = 3, SIDE

    def __init__(self, vocabulary: Mapping[str, Tensor] | None = None, known_words: Sequence[str] = ()) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(torch.randn(3 * SIDE * SIDE, WIDTH, generator=generator))
        self.basis = nn.Parameter(basis)
        self.schedule = NoiseSchedule.from_betas(linear_betas(50))
        self.vocabulary = {"the": torch.zeros(1, WIDTH), **(vocabulary or {})}
        self.known_words = tuple(known_words)
        self.calls = 0

    def embed(self, prompts: Sequence[str], words: Mapping[str, Tensor] | None = None) -> Condition:
        tokens = [re.findall(r"<[^<>\s]+>", prompt) for prompt in prompts]
        assert all(len(found) == 1 for found in tokens)
        return Condition(pooled=torch.stack([(words or {})[found[0]].mean(0) for found in tokens]))

    def word_vectors(self, text: str) -> Tensor:
        return torch.cat([self.vocabulary[word] for word in text.split()])

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        assert condition is not None
        assert condition.pooled is not None
        self.calls += len(x_t)
        return (condition.pooled @ self.basis.T).view(-1, 3, SIDE, SIDE)

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        return (self(self.schedule.add_noise(x0, noise, t), t, condition) - x0).square().mean((1, 2, 3))

    def best(self, pictures: Tensor) -> Tensor:
        """(D,) from pictures (n, 3, SIDE, SIDE) in [0, 1]."""
        return (2 * pictures - 1).mean(0).flatten() @ self.basis.detach()


def picture(seed: int, side: int = SIDE) -> Image.Image:
    """Noise around a colour of its own."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 200, 3) + random.integers(0, 56, (side, side, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def pictures(shots: Mapping[str, int], *, flips: bool = False, side: int = SIDE) -> ImageSet:
    """So many pictures of each class; a class's pictures are a function of its name."""
    examples = [
        Example(id=f"{label}/{copy}", image=picture(sum(name.encode()) * 100 + copy, side), label=label)
        for label, (name, count) in enumerate(shots.items())
        for copy in range(count)
    ]
    return ImageSet.of(examples, classes=tuple(shots), flips=flips)


def distance(one: Concepts, two: Concepts) -> float:
    """The largest difference of a number in the words of the second one's classes."""
    return max(float((one.words[name] - two.words[name]).abs().max()) for name in two.classes)
