"""Real and synthetic images mixed as DA-Fusion mixes them."""

from __future__ import annotations

import hashlib
import operator
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from torch.utils.data import Dataset

from rediffuse.data.images import to_tensor
from rediffuse.data.open import open_images
from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.progress import counted


class Mixed(Dataset[tuple[Any, int]]):
    """Each real image, or with probability alpha one of its synthetic copies, chosen uniformly.

    Index and label are always those of the real image, so classes and sources keep their frequency whatever was generated. Real
    images without copies stay real. What an index gives is a function of (seed, epoch, index) alone: workers, batch size and order
    change nothing. Call `set_epoch` before each pass, also with persistent workers; a sampler that draws an index more than once in
    a pass (as the paper's does, with replacement) gives pairs (draw, index) instead, and each draw chooses anew.

    Args:
        real: the labelled set, or its path.
        synthetic: images whose `source` is the id of a real one, such as a run's folder; None mixes nothing in. Those of other
            sources are left out; where a run says what its sources were, those of another picture of the same id too, with a warning.
        alpha: probability of a synthetic image, in [0, 1].
        transform: takes the PIL image, real or synthetic alike; without it images are float32 (3, H, W) in [0, 1].
        seed: of the choice.
    Returns an item as (image, label).
    Raises:
        DataError: an unlabelled set, or synthetic images none of which belongs to a real one.
    Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944, section on balancing real and synthetic data.
    """

    def __init__(
        self,
        real: ImageSet | str | Path,
        synthetic: ImageSet | str | Path | None,
        alpha: float = 0.5,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha is the probability of a synthetic image and must be in [0, 1], got {alpha}")
        real, synthetic = open_images(real), None if synthetic is None else open_images(synthetic)
        if None in real.labels:
            raise DataError(
                f"{real.name} has images without a label; sort the images into one folder a class, or give a table of file and label"
            )
        self.real, self.synthetic, self.alpha, self.transform, self.seed = real, synthetic, alpha, transform, seed
        self.copies: tuple[tuple[int, ...], ...] = _copies(real, synthetic)
        # In shared memory, so that workers which outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The pass that the next items belong to."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose anew for another pass over the images."""
        self._epoch.fill_(epoch)

    def choose(self, index: int, epoch: int | None = None) -> int | None:
        """The row of the synthetic image that an index gives in an epoch (default: the current one), or None for the real image."""
        copies = self.copies[index]
        if not copies:
            return None
        key = f"mix/{self.seed}/{self.epoch if epoch is None else epoch}/{index}"
        bits = hashlib.blake2b(key.encode(), digest_size=16).digest()
        coin, place = int.from_bytes(bits[:8], "little"), int.from_bytes(bits[8:], "little")
        return copies[place % len(copies)] if coin < self.alpha * 2**64 else None

    def example(self, index: int, epoch: int | None = None) -> Example:
        """The example that an index gives, real or synthetic, before the transform."""
        row = self.choose(index, epoch)
        return self.real[index] if row is None or self.synthetic is None else self.synthetic[row]

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Any, int]:
        epoch, place = index if isinstance(index, tuple) else (None, index)
        if not isinstance(place, SupportsIndex):
            raise TypeError(f"Mixed takes one index, or a pair (draw, index), got {type(place).__name__}")
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is outside a set of {len(self)} images")
        place = operator.index(place) % len(self)
        image = self.example(place, epoch).image
        label = self.real.labels[place]
        if label is None:
            raise DataError(f"{self.real.ids[place]} has no label")
        return (to_tensor(image) if self.transform is None else self.transform(image)), label


def _copies(real: ImageSet, synthetic: ImageSet | None) -> tuple[tuple[int, ...], ...]:
    """Rows of the synthetic set for each real image, in order of their ids."""
    if synthetic is None:
        return ((),) * len(real)
    rows: dict[str, list[int]] = {}
    for row in sorted(range(len(synthetic)), key=synthetic.ids.__getitem__):
        source = synthetic.sources[row]
        if source is not None:
            rows.setdefault(source, []).append(row)
    of = synthetic.source_digests
    found = tuple(
        tuple(row for row in rows.get(name, ()) if of[row] in (None, digest)) for name, digest in zip(real.ids, real.digests, strict=True)
    )
    strange = [name for name, own in zip(real.ids, found, strict=True) if len(own) < len(rows.get(name, ()))]
    if strange and not any(found):
        raise DataError(
            f"no image of {synthetic.name} was made from one of {real.name}: they share names such as {strange[0]!r}, but the pictures are "
            "others; mix a run with the set that it was made from"
        )
    if strange:
        warnings.warn(
            f"copies in {synthetic.name} of {counted(len(strange), 'image')}, such as {strange[0]!r}, were made from other pictures of "
            f"these names than those of {real.name}, and are left out",
            stacklevel=3,
        )
    if not any(found):
        example = next(iter(rows), None)
        wanted = f"they name sources such as {example!r}" if example is not None else "none of them names a source"
        raise DataError(
            f"no image of {synthetic.name} was made from one of {real.name}: {wanted}, the real ones are called {real.ids[0]!r} and so on; "
            "mix a run with the set that it was made from"
        )
    return found
