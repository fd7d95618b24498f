"""Features of whole sets: a block at a time, in memory or in a file that a killed run finds again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.fidelity.inception import SPLITS, ClassSums
from rediffuse.evaluation.judged import Judged, batches
from rediffuse.evaluation.kept import Kept, in_blocks
from rediffuse.lock import Lock
from rediffuse.training.checkpoint import weights_hash
from rediffuse.training.classifier import evaluating

BLOCK = 4096
"""Images that are kept together."""
DEFAULT = "resnet-64"
"""The bundled network whose features are taken where none is given."""
Extractor = Judged | Callable[[Tensor], Tensor]
"""A classifier, whose features are what its head sees, or a callable: (B, 3, S, S) in [0, 1] -> (B, D)."""
Progress = Callable[[int, int], None]
_TYPES: Mapping[str, tuple[torch.dtype, str]] = {"float32": (torch.float32, "<f4"), "float16": (torch.float16, "<f2")}


@dataclass(frozen=True, kw_only=True)
class Taken:
    """How features are taken.

    Args:
        size: side in pixels of the square that every image becomes, with antialiasing; 64 for `resnet-64`, the pictures' own
            side for `published.inception`, which resizes by itself.
        fit: how other shapes become that square; see `data.geometry.Fit`.
        batch: images a call.
        numbers: of stored features. A million of 512 dimensions take 2.05 GB as float32 and 1.02 GB as float16, which rounds by 0.05 %.
    """

    size: int = 64
    fit: str = "squash"
    batch: int = 256
    numbers: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.numbers not in _TYPES:
            raise ConfigError(f"numbers must be one of {', '.join(_TYPES)}, got {self.numbers!r}")
        if self.size < 1 or self.batch < 1:
            raise ConfigError(f"size and batch must be at least 1, got {self.size} and {self.batch}")

    def identity(self) -> dict[str, Any]:
        """What decides the features; a batch may be made smaller where a run ended for want of memory."""
        return {"size": self.size, "fit": self.fit, "numbers": self.numbers}


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Features of a set, in its order.

    Attributes:
        values: (N, D) float32 or float16, in memory or mapped from a file.
        sums: of class probabilities; None where the extractor is no classifier.
    """

    values: Tensor = field(repr=False)
    sums: ClassSums | None = field(default=None, repr=False)


def take_features(
    images: ImageSet,
    extractor: Extractor,
    taken: Taken,
    *,
    kept: Kept | None = None,
    name: str = "features",
    splits: int = SPLITS,
    progress: Progress | None = None,
) -> Features:
    """Features of every image of a set; no more than a batch of pictures is held.

    One process at a time fills a place: another would write over the file that its blocks lie in.

    Args:
        kept: with a place, features lie in its file NAME-features.kept, mapped into memory, and a killed run goes on.
        name: of the set in that place.
        splits: of the Inception Score.
        progress: called with (images done, images in all).
    Raises:
        DataError: no images.
        ModelError: features that are not (B, D) or not finite.
        PlanError: another process is at this set in this place.
    """
    if not len(images):
        raise DataError(f"{images.name} holds no images to take features of")
    if kept is None:
        return _taken(images, extractor, taken, None, name, splits, progress)
    file = kept.folder / f"{name}-features.lock"
    with Lock(file, fix=f"remove {file}"):
        return _taken(images, extractor, taken, kept, name, splits, progress)


def _taken(
    images: ImageSet, extractor: Extractor, taken: Taken, kept: Kept | None, name: str, splits: int, progress: Progress | None
) -> Features:  # fmt: skip
    fresh = kept is None or not any(kept.has(f"{name}-{start:09d}") for start in range(0, len(images), BLOCK))
    stores: list[np.ndarray[Any, Any]] = []

    def store(width: int) -> np.ndarray[Any, Any]:
        if not stores:
            stores.append(_store(len(images), width, taken.numbers, kept, name, fresh=fresh))
        return stores[0]

    def make(rows: slice) -> dict[str, Tensor]:
        values, own = _block(images[rows], extractor, taken, rows.start, splits, progress, len(images))
        place = store(values.shape[1])
        place[rows] = values.numpy()
        if isinstance(place, np.memmap):
            place.flush()  # before the block counts as done
        told = {} if own is None else {"count": own.count, "probability": own.probability, "negentropy": own.negentropy}
        return {"width": torch.tensor(values.shape[1]), **told}

    sums = None
    for rows, block in in_blocks(len(images), BLOCK, make, kept, f"{name}-"):
        store(int(block["width"]))
        told = {key: value for key, value in block.items() if key != "width"}
        own = ClassSums(**told) if told else None
        sums = own if sums is None or own is None else sums.merge(own)
        if progress is not None:
            progress(rows.stop, len(images))
    return Features(values=torch.from_numpy(stores[0]), sums=sums)


def identity_of(extractor: Extractor, identity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What tells an extractor from others, as JSON. Raises ConfigError for a bare function without `identity`."""
    if identity is not None:
        return dict(identity)
    if isinstance(extractor, Judged):
        return extractor.identity()
    if isinstance(extractor, nn.Module):
        return {"network": type(extractor).__name__, "weights": weights_hash(extractor)}
    raise ConfigError("features of a bare function cannot be told from those of another; give identity={...}, or keep nothing")


def _block(
    images: ImageSet, extractor: Extractor, taken: Taken, start: int, splits: int, progress: Progress | None, total: int
) -> tuple[Tensor, ClassSums | None]:
    parts, sums, done = [], None, start
    for rows, pictures in batches(images, size=taken.size, fit=taken.fit, batch=taken.batch):
        values, logits = _features(extractor, pictures)
        parts.append(_checked(values, len(pictures), taken.numbers))
        if logits is not None:
            own = ClassSums.of(logits, done, splits)
            sums = own if sums is None else sums.merge(own)
        done += len(rows)
        if progress is not None:
            progress(done, total)
    return torch.cat(parts), sums


@torch.no_grad()
def _features(extractor: Extractor, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
    if isinstance(extractor, Judged):
        return extractor.features(pictures)
    if isinstance(extractor, nn.Module):
        where = next((value.device for value in extractor.parameters()), torch.device("cpu"))
        with evaluating(extractor):
            return extractor(pictures.to(where)), None
    return extractor(pictures), None


def _checked(values: Tensor, count: int, numbers: str) -> Tensor:
    if not isinstance(values, Tensor) or values.ndim < 2 or len(values) != count or values[0].numel() != values.shape[1]:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ModelError(f"an extractor gives (B, D) for {count} images, got {shape}")
    stored = values.flatten(1).cpu().to(_TYPES[numbers][0])
    if not bool(stored.isfinite().all()):
        raise ModelError(f"an extractor gave features that are NaN or infinite in {numbers}; take float32, or look at its weights")
    return stored


def _store(count: int, width: int, numbers: str, kept: Kept | None, name: str, fresh: bool) -> np.ndarray[Any, Any]:
    """Room for all features; `fresh` where no block is done, so that what a killed first block left is written over."""
    kind = np.dtype(_TYPES[numbers][1])
    if kept is None:
        return np.zeros((count, width), dtype=kind)
    file = kept.folder / f"{name}-features.kept"
    if not fresh and (not file.exists() or file.stat().st_size != count * width * kind.itemsize):
        raise DataError(f"{file} is gone or of another size than its blocks say; remove {kept.folder}, and its images are asked again")
    return np.memmap(file, dtype=kind, mode="w+" if fresh else "r+", shape=(count, width))
