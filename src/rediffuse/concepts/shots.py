"""The photos that words are learned from, encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError, DataError
from rediffuse.progress import Bar

_CHUNK = 8
T = TypeVar("T")


class Photos(Protocol):
    """What learning asks of a labelled set; `rediffuse.data.ImageSet` gives it.

    classes: true class names; labels: index into them, one a photo; digests: a hash of each photo's pixels; flips: whether a mirrored
    photo keeps its label.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[int | None, ...]: ...
    @property
    def digests(self) -> tuple[str, ...]: ...
    @property
    def flips(self) -> bool: ...
    @property
    def name(self) -> str: ...
    def fitted(self, size: int, *, mode: Literal["pad", "crop", "squash"], multiple_of: int) -> Iterator[Tensor]:
        """Each photo as (3, size, size) float in [0, 1], in order."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Shots:
    """Encoded photos by class.

    names: classes; latents: for each class (n, V, C, H, W) float32 on the CPU, V = 2 (as it is, mirrored) with flips, else 1.
    """

    names: tuple[str, ...]
    latents: tuple[Tensor, ...]

    @property
    def flips(self) -> bool:
        return self.latents[0].shape[1] == 2

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one."""
        return tuple(self.latents[0].shape[2:])


def check_photos(photos: Photos) -> None:
    """Raise DataError unless every photo has a label and every class a photo, ConfigError for what is no set of photos."""
    if not all(hasattr(photos, name) for name in ("classes", "labels", "fitted")):
        raise ConfigError(f"learn takes a labelled set, such as rediffuse.data.open_images(PATH) gives, got {photos!r:.60}")
    if not photos.classes or any(label is None for label in photos.labels):
        raise DataError(f"{photos.name} has photos without a label; sort them into one folder a class, or give a table of file and label")
    empty = [name for label, name in enumerate(photos.classes) if label not in photos.labels]
    if empty:
        names = ", ".join(map(repr, empty[:5]))
        raise DataError(f"{len(empty)} classes of {photos.name} have no photos to learn from: {names}; add photos or remove the classes")


def encode_shots(photos: Photos, model: Denoiser, recipe: InversionRecipe, bar: Bar) -> Shots:
    """Every photo through the encoder once, and its mirror image once where flips are wanted and the set allows them.

    The published trainers encode the same few photos anew in every step. They also sample from the encoder's posterior; its spread is
    small beside the latents', and here its mean is taken.
    """
    if model.size is None:
        raise ConfigError(f"{type(model).__name__} does not say what image size it was trained at; set its `size` before learning words")
    flips = recipe.flips and photos.flips
    bar.stage("encoding photos", len(photos.labels))
    rows: list[Tensor] = []
    fitted = photos.fitted(model.size, mode=recipe.fit, multiple_of=model.multiple_of)
    for chunk in in_chunks(fitted, _CHUNK):
        images = torch.stack(chunk).to(model.device)  # (b, 3, s, s)
        with torch.no_grad():
            ways = [model.encode(view).float().cpu() for view in ([images, images.flip(-1)] if flips else [images])]
        rows.extend(torch.stack(ways, dim=1))  # (V, C, H, W) each
        bar.advance(len(chunk))
    latents = tuple(torch.stack([rows[place] for place in _places(photos, label)]) for label in range(len(photos.classes)))
    return Shots(names=photos.classes, latents=latents)


def photos_digest(photos: Photos) -> str:
    """sha256 over class names and pixel hashes, whatever the order of the photos."""
    lines = sorted(
        f"{photos.classes[label]}\0{digest}" for label, digest in zip(photos.labels, photos.digests, strict=True) if label is not None
    )
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in order; the last may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _places(photos: Photos, label: int) -> list[int]:
    # Ordered by pixels, so that the order of files changes no word.
    return sorted((place for place, own in enumerate(photos.labels) if own == label), key=photos.digests.__getitem__)
