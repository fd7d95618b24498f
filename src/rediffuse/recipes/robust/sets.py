"""The pictures that robust classifiers are judged by: CIFAR-10's own, the same things photographed for another set, and other things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rediffuse.data.open import open_images
from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import DataError
from rediffuse.recipes.cifar10_split import HELD, split_rows
from rediffuse.recipes.robust.arms import SIZE

FIT: Literal["squash"] = "squash"
NATURAL = "natural"
ELSEWHERE = "tiny-imagenet-base"
SHIFTED: Mapping[str, tuple[str, ...]] = {
    "automobile": ("beach wagon", "convertible", "sports car"),
    "bird": ("albatross", "black stork", "goose", "king penguin"),
    "cat": ("Egyptian cat", "Persian cat", "tabby"),
    "dog": ("Labrador retriever", "golden retriever", "standard poodle"),
    "frog": ("bullfrog", "tailed frog"),
    "ship": ("gondola", "lifeboat"),
    "truck": ("moving van",),
}
"""CIFAR-10's class -> classes of Tiny ImageNet that are of it; the terms under which CIFAR-10's own pictures were collected decide."""
UNCLEAR = ("police van",)
"""Neither of CIFAR-10's classes nor surely outside of them (its trucks hold delivery vans)."""
FAR = ("textures-64", "eurosat", "mnist-5k")
Split = tuple[Tensor, Tensor]
"""(images (N, 3, H, W) uint8, labels (N,))."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shift:
    """Pictures of some of the classes, of another make.

    Attributes:
        images: (N, 3, H, W) uint8. labels: (N,) indices into the classifier's classes. shown: those that occur, sorted; only they are
            answers.
    """

    images: Tensor
    labels: Tensor
    shown: Tensor


def test_images(data: Path) -> ImageSet:
    """CIFAR-10's test pictures."""
    return _named(open_images(data / "cifar10", split="test"), "cifar10")


def training_images(data: Path, held: int = HELD) -> ImageSet:
    """The training pictures that denoiser and classifiers have seen: 45,000."""
    return _part(data, held, 0)


def held_images(data: Path, held: int = HELD) -> ImageSet:
    """The training pictures that neither has seen: 5,000."""
    return _part(data, held, 1)


def natural_images(data: Path) -> ImageSet | None:
    """Tiny ImageNet's pictures of CIFAR-10's things, labelled as CIFAR-10 does; None where that set is not there.

    They are of its training part, which no classifier or denoiser of CIFAR-10 has seen: it holds fifteen times as many.
    """
    folder = data / ELSEWHERE
    if not folder.is_dir():
        return None
    everything = open_images(folder, split="train")
    names = sorted(SHIFTED)
    own = {term: place for place, name in enumerate(names) for term in SHIFTED[name]}
    place = [own.get(everything.classes[label or 0]) for label in everything.labels]
    rows = [row for row, label in enumerate(place) if label is not None]
    if not rows:
        raise DataError(f"{folder} holds none of {', '.join(own)}; it is another set")
    chosen = everything.subset(rows)
    examples = (Example(id=one.id, image=one.image, label=place[row]) for row, one in zip(rows, chosen, strict=True))
    return ImageSet.of(examples, classes=names, name=NATURAL)


def shift_of(images: ImageSet, classes: tuple[str, ...]) -> Shift:
    """The pictures at CIFAR-10's size, with antialiasing, and their labels as a classifier counts."""
    named = images.with_classes(classes)
    pictures = torch.stack([one.mul(255).round().to(torch.uint8) for one in named.fitted(SIZE, mode=FIT)])
    labels = torch.tensor([label for label in named.labels if label is not None])
    return Shift(images=pictures, labels=labels, shown=labels.unique())


def unknown_images(data: Path, known: Iterable[str]) -> tuple[dict[str, ImageSet], dict[str, ImageSet]]:
    """(near, far): what CIFAR-10's classifiers do not know. Raises DataError where a set is missing.

    known: digests of CIFAR-10's own pictures; a few of CIFAR-100's are among them, and are left out.
    """
    other = open_images(data / ELSEWHERE, split="validation")
    taken = {*UNCLEAR, *(term for terms in SHIFTED.values() for term in terms)}
    rows = [row for row, label in enumerate(other.labels) if other.classes[label or 0] not in taken]
    near = {"cifar100": open_images(data / "cifar100", split="test"), "tiny-imagenet": other.subset(rows)}
    far = {name: open_images(data / name, split="train" if name.startswith("mnist") else "test") for name in FAR}
    own = set(known)

    def others(images: ImageSet, name: str) -> ImageSet:
        return _named(images.subset([row for row, digest in enumerate(images.digests) if digest not in own]), name)

    return {name: others(images, name) for name, images in near.items()}, {name: others(images, name) for name, images in far.items()}


def _part(data: Path, held: int, which: int) -> ImageSet:
    everything = open_images(data / "cifar10", split="train")
    rows = split_rows([label for label in everything.labels if label is not None], held)[which]
    return _named(everything.subset(rows.tolist()), "cifar10 training")


def _named(images: ImageSet, name: str) -> ImageSet:
    images.name = name
    return images
