"""Where corrupted pictures come from: made here as they are asked for, or read as they were published (`published`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.corruptions.apply import corrupt
from rediffuse.evaluation.corruptions.constants import ALL, SEVERITIES, SMALLEST, published_size
from rediffuse.evaluation.corruptions.frost import FrostSource, frost_overlays
from rediffuse.evaluation.judged import Judged, batches
from rediffuse.evaluation.kept import fingerprint

HELD = 256 << 20
"""Bytes of clean pictures that are held, so that they are decoded once; a larger set is decoded anew for each corruption."""


class Corrupted(Protocol):
    """Pictures under corruptions: the same ones, in the same order, under each.

    Attributes:
        name: for humans.
        side: of the pictures, px.
        corruptions, severities: what there is.
        notes: what whoever reads the figures must know.
    """

    name: str
    side: int
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int: ...
    def clean(self, batch: int) -> Iterator[Tensor] | None: ...
    def under(self, corruption: str, severity: int, batch: int) -> Iterator[Tensor]: ...
    def comparable(self, corruption: str) -> bool: ...
    def truth(self, judged: Judged) -> Tensor: ...
    def identity(self) -> dict[str, Any]: ...


class Live:
    """Corruptions made on the way, a batch at a time.

    Args:
        images: labelled.
        size: side that pictures are fitted to; None takes the side that they all have.
        fit: how other shapes become that square; see `data.geometry.Fit`.
        seed, frost: as in `apply.corrupt`.
    Raises:
        DataError: no images; without a size: pictures that are not square, too small, or of several sizes.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        size: int | None = None,
        fit: str = "pad",
        seed: int = 0,
        frost: FrostSource = "auto",
    ) -> None:
        if not len(images):
            raise DataError(f"{images.name} holds no images")
        self.images, self.fit, self.seed = images, fit, seed
        self.side = size if size is not None else common_side(images)
        self.constants_of = published_size(self.side)
        self.name, self.corruptions, self.severities = images.name, ALL, SEVERITIES
        self._overlays, self._frost = frost_overlays(self.side, frost), frost
        self._held: NDArray[np.uint8] | None = None
        self.notes: tuple[str, ...] = ()
        if self.side != self.constants_of:
            self.notes += (f"pictures of {self.side} px, constants published for {self.constants_of} px",)
        if small := sum(min(own) < SMALLEST for own in images.sizes):
            self.notes += (f"{small:,} of {len(self):,} pictures have a side below {SMALLEST} px and were scaled to be corrupted",)
        self._as_published = not self.notes
        if not self._overlays.comparable:
            self.notes += (
                "frost is drawn, not photographed: it is not comparable with published figures (extra `corruptions` has the photos)",
            )

    def __len__(self) -> int:
        return len(self.images)

    def clean(self, batch: int) -> Iterator[Tensor]:
        """(B, 3, side, side) uint8, in order."""
        if self._held is not None:
            for start in range(0, len(self), batch):
                yield torch.from_numpy(self._held[start : start + batch])
            return
        small = len(self) * 3 * self.side**2 <= HELD
        held = np.empty((len(self), 3, self.side, self.side), dtype=np.uint8) if small else None
        for rows, pictures in batches(self.images, size=self.side, fit=self.fit, batch=batch):
            levels = pictures.mul(255).round().to(torch.uint8)
            if held is not None:
                held[rows[0] : rows[-1] + 1] = levels.numpy()
            yield levels
        self._held = held

    def under(self, corruption: str, severity: int, batch: int) -> Iterator[Tensor]:
        for pictures in self.clean(batch):
            yield corrupt(pictures, corruption, severity, seed=self.seed, frost=self._frost)

    def comparable(self, corruption: str) -> bool:
        return self._as_published and (corruption != "frost" or self._overlays.comparable)

    def truth(self, judged: Judged) -> Tensor:
        return judged.truth(self.images)

    def identity(self) -> dict[str, Any]:
        frost = self._overlays.digest
        return {"images": fingerprint(self.images), "side": self.side, "fit": self.fit, "seed": self.seed, "frost": frost}


def common_side(images: ImageSet) -> int:
    """The side of all pictures. Raises DataError with one that has another, or that is not square."""
    side = images.sizes[0][0]
    for name, (width, height) in zip(images.ids, images.sizes, strict=True):
        if width != height:
            raise DataError(
                f"{name} of {images.name} is {width} x {height} px and corruptions want squares; give the size to fit pictures to"
            )
        if width != side:
            raise DataError(f"{images.name} has pictures of {side} and of {width} px ({name}); give the size to fit them to")
    return side
