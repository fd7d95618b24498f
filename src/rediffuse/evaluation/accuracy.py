"""How often a classifier is right: top-1, the mean over classes, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import DataError

DENSE = 100
"""Classes up to which a file holds the whole confusion matrix; of more it holds what occurs."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a classifier did on a labelled set; every figure follows from the confusion counts.

    Attributes:
        classes: names, in label order.
        cells: (true class, predicted class, images) of the pairs that occur, in order; as many as images at most, whatever the classes.
    """

    classes: tuple[str, ...]
    cells: tuple[tuple[int, int, int], ...]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """The confusion matrix (true, predicted); K x K numbers."""
        found = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        for true, predicted, count in self.cells:
            found[true, predicted] = count
        return found

    @cached_property
    def totals(self) -> NDArray[np.int64]:
        """(K,) images of each class."""
        found = np.zeros(len(self.classes), dtype=np.int64)
        for true, _, count in self.cells:
            found[true] += count
        return found

    @cached_property
    def hits(self) -> NDArray[np.int64]:
        """(K,) images of each class that are named rightly."""
        found = np.zeros(len(self.classes), dtype=np.int64)
        for true, predicted, count in self.cells:
            found[true] += count if true == predicted else 0
        return found

    @property
    def images(self) -> int:
        return int(self.totals.sum())

    @property
    def shown(self) -> int:
        """Classes that have test images."""
        return int((self.totals > 0).sum())

    @property
    def top1(self) -> float:
        """Share of images that are named rightly."""
        return float(self.hits.sum() / self.images)

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Share of each class's images that are named rightly; None for a class without test images."""
        return tuple(float(hits / total) if total else None for hits, total in zip(self.hits, self.totals, strict=True))

    @property
    def mean_per_class(self) -> float:
        """Unweighted mean over the classes that have test images; counting the others as 0 would punish every arm alike."""
        present = [value for value in self.per_class if value is not None]
        return float(np.mean(present))

    def to_json(self) -> dict[str, Any]:
        """With the whole matrix as `confusion` up to `DENSE` classes, else with `cells`."""
        few = len(self.classes) <= DENSE
        return {
            "top1": self.top1,
            "mean_per_class": self.mean_per_class,
            "per_class": list(self.per_class),
            **({"confusion": self.counts.tolist()} if few else {"cells": [list(cell) for cell in self.cells]}),
            "classes": list(self.classes),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Accuracy:
        if "cells" in values:
            return cls(classes=tuple(values["classes"]), cells=tuple((int(a), int(b), int(n)) for a, b, n in values["cells"]))
        return cls(classes=tuple(values["classes"]), cells=_cells(np.asarray(values["confusion"], dtype=np.int64)))


def _cells(counts: NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    return tuple((int(a), int(b), int(counts[a, b])) for a, b in np.argwhere(counts))


def measure(predictions: Sequence[int], labels: Sequence[int], classes: Sequence[str]) -> Accuracy:
    """Count predictions against true labels.

    Args:
        predictions, labels: one class index an image.
        classes: names, in label order.
    Raises:
        DataError: no images, different lengths, or an index outside the classes.
    """
    guessed, truth = np.asarray(predictions, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if guessed.shape != truth.shape or guessed.ndim != 1 or guessed.size == 0:
        raise DataError(f"predictions and labels must be two lists of one length, at least 1, got {guessed.shape} and {truth.shape}")
    count = len(classes)
    outside = [int(value) for value in np.concatenate([guessed, truth]) if not 0 <= value < count]
    if outside:
        raise DataError(f"class index {outside[0]} is outside the {count} classes")
    pairs, times = np.unique(truth * count + guessed, return_counts=True)
    cells = tuple((int(pair) // count, int(pair) % count, int(images)) for pair, images in zip(pairs, times, strict=True))
    return Accuracy(classes=tuple(classes), cells=cells)
