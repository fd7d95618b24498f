"""What chance decides in an update of one word: a function of (seed, class name, step), whichever other words are learned beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.concepts.shots import Shots


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """Training samples of an update, on the CPU.

    owner: (N,) int64, the class; x0, noise: (N, C, H, W) float32; t: (N,) int64; template: (N,) int64.
    """

    owner: Tensor
    x0: Tensor
    noise: Tensor
    t: Tensor
    template: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def index(self, rows: Tensor) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def draw_samples(recipe: InversionRecipe, shots: Shots, *, seed: int, step: int, levels: int) -> Samples:
    """The sub-batches of all classes at a step, class after class. levels: length of the noise schedule."""
    places = range(len(shots.names))
    return Samples.cat([_sub_batch(recipe, shots, place, seed=seed, step=step, levels=levels) for place in places])


def seeded(*parts: str | int) -> torch.Generator:
    """A generator that these values alone decide, on the CPU."""
    digest = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _sub_batch(recipe: InversionRecipe, shots: Shots, place: int, *, seed: int, step: int, levels: int) -> Samples:
    name, latents, size = shots.names[place], shots.latents[place], recipe.batch_per_class
    generator = seeded("draw", seed, name, step)
    share = torch.rand(size, generator=generator, dtype=torch.float64)
    if recipe.times == "stratified":
        share = (torch.arange(size) + share) / size
    mirrored = torch.rand(size, generator=generator) < 0.5
    photos = _photos(seed, name, step * size, size, len(latents))
    return Samples(
        owner=torch.full((size,), place),
        x0=latents[photos, mirrored.long() if shots.flips else 0],
        noise=torch.randn((size, *shots.shape), generator=generator),
        t=(share * levels).long().clamp(max=levels - 1),
        template=torch.randint(len(recipe.templates), (size,), generator=generator),
    )


def _photos(seed: int, name: str, first: int, size: int, count: int) -> Tensor:
    """Places first .. first + size - 1 of an endless row of shuffled epochs of `count` photos: all are used as often, give or take one."""
    epochs = range(first // count, (first + size - 1) // count + 1)
    row = torch.cat([torch.randperm(count, generator=seeded("photos", seed, name, epoch)) for epoch in epochs])
    start = first - epochs[0] * count
    return row[start : start + size]
